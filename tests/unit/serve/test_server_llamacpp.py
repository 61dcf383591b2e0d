"""A server whose answers are written by llama.cpp; `make test-llamacpp`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from icae.config.types import OWN_TOKENS
from icae.decode.checkpoint import BaseFolder
from icae.engine import Engine

pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed; `make test-llamacpp` installs it"
)

from icae.decode.cache_order import find_order
from icae.decode.llamacpp.context import LlamaModel
from icae.decode.llamacpp.forms import CacheEntry
from icae.decode.llamacpp.runtime import LlamaCppRuntime
from icae.decode.llamacpp.weights import write_gguf

KEY_VALUES = {"memory": "key-values", "framing": "between", "objective_tokens": 2}


@pytest.fixture
def engine(build_engine: Any) -> Engine:
    return build_engine(**KEY_VALUES)  # type: ignore[no-any-return]


@pytest.fixture
def server(engine: Engine, serve: Any, tmp_path: Path) -> Any:
    model = engine.runtime.model
    model.decoder.save_pretrained(tmp_path / "base")
    write_gguf(BaseFolder.open(tmp_path / "base"), tmp_path / "base.gguf", "float32")
    weights = LlamaModel(tmp_path / "base.gguf")
    embedding = model.decoder.get_input_embeddings().weight.detach().numpy()
    entry = CacheEntry(order=find_order(model.decoder, weights), embed=lambda ids: embedding[ids])
    vectors = {name: model.tokens.objective(name).detach().numpy() for name in OWN_TOKENS}
    decoder = LlamaCppRuntime(weights, model.config, vectors, dtype="float32", entry=entry)
    return serve(decoder=decoder, longest_message=40)


def test_answers_are_those_of_torch_and_of_the_runtime_alone(engine: Engine, server: Any) -> None:
    made = server.make_memory()
    memory = engine.compress("The fox is in the inn. " * 3, name="fox")
    questions = [f"Where is {i}?" for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda question: server.ask(made["id"], question), questions))
    llama = engine.answering_in(server.service.worker._answering.icae.decoder)
    for reader in (engine, llama):
        expected = [reader.ask(memory, question, max_new_tokens=6).text for question in questions]
        assert answers == expected


def test_streams_samples_stops_and_long_messages_are_as_with_torch(server: Any, serve: Any) -> None:
    long, plain = "The fox is in the inn. " * 12 + "\n\nWhere?", serve(longest_message=40)
    for settings in (
        {"temperature": 0.7, "seed": 3, "top_p": 0.9},
        {"logprobs": True, "top_logprobs": 2, "frequency_penalty": 0.5},
        {"stop": ["e", "a"]},
    ):
        own, other = (one.chat(long, **settings).choices[0] for one in (server, plain))
        assert own.message.content == other.message.content
        assert own.finish_reason == other.finish_reason
        if own.logprobs is not None:
            pairs = zip(own.logprobs.content, other.logprobs.content, strict=True)
            assert all(a.logprob == pytest.approx(b.logprob, abs=1e-3) for a, b in pairs)
    whole = plain.chat(long).choices[0].message.content
    pieces = server.chat(long, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text.strip() == whole
