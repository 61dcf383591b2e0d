"""The vLLM runtime against the torch runtime, on tiny models behind a stand-in for a server."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icae.config.types import OWN_TOKENS
from icae.decode.checkpoint import BaseFolder
from icae.decode.prefix import Prefix, Request
from icae.decode.torch import TorchRuntime
from icae.decode.vllm.client import VllmAddress, VllmClient
from icae.decode.vllm.runtime import VllmRuntime
from icae.errors import (
    BaseModelError,
    ConfigError,
    IncompatibleMemoryError,
    InputError,
    MissingDependencyError,
    ServiceError,
)
from icae.memory import Embeddings
from mixed_prefix import mixed_prefix
from vllm_stub import VllmStub, vllm_stub

AROUND = {"framing": "around", "objective_tokens": 3}
NOTHING = np.zeros(0, dtype=np.int64)


@pytest.fixture
def start(tmp_path: Path, build_model: Any) -> Iterator[Callable[..., Any]]:
    """``start(family, config={}, dtype=..., address={}, **stub)``: torch, vLLM and its stub."""
    with ExitStack() as stack:
        number = itertools.count()

        def begin(
            family: str = "llama",
            *,
            config: dict[str, Any] | None = None,
            dtype: Any = "float32",
            address: dict[str, Any] | None = None,
            bases: Any = ("tiny-base",),
            **settings: Any,
        ) -> tuple[TorchRuntime, VllmRuntime, VllmStub]:
            model = build_model(family, **(config or {}))
            folder = tmp_path / f"base-{next(number)}"
            model.decoder.save_pretrained(folder)
            stub = stack.enter_context(vllm_stub(settings.pop("runs", model.decoder), **settings))
            client = VllmClient(VllmAddress(url=stub.url, **(address or {})))
            client._client.max_retries = 0
            vectors = {name: model.tokens.objective(name).detach().numpy() for name in OWN_TOKENS}
            runtime = VllmRuntime(
                client, BaseFolder.open(folder), model.config, vectors, bases=bases, dtype=dtype
            )
            stub.bodies.clear()
            stub.dtypes.clear()
            return TorchRuntime(model), runtime, stub

        yield begin


@pytest.mark.parametrize("config", [{}, AROUND])
def test_a_server_writes_the_tokens_that_torch_writes(
    family: str, start: Any, random_ids: Any, config: dict[str, Any]
) -> None:
    torch_runtime, vllm, _ = start(family, config=config)
    prefix = mixed_prefix(torch_runtime, random_ids)

    for asked in (prefix, None):
        prompt = random_ids(5, 7)
        expected = torch_runtime.generate(asked, prompt, max_new_tokens=8, stop_ids=())
        made = vllm.generate(asked, prompt, max_new_tokens=8, stop_ids=())
        assert made.token_ids == expected.token_ids
        assert made.positions == expected.positions
        assert not made.stopped


def test_a_server_and_torch_agree_on_sizes(family: str, start: Any) -> None:
    torch_runtime, vllm, _ = start(family)

    assert vllm.vocabulary == torch_runtime.vocabulary
    assert vllm.context_window == torch_runtime.context_window
    assert vllm.kv_bytes(10) == torch_runtime.kv_bytes(10)
    assert vllm.name == "vllm float32"


def test_the_shorter_of_both_context_windows_counts(start: Any) -> None:
    assert start(window=100)[1].context_window == 100


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(start: Any, random_ids: Any) -> None:
    torch_runtime, vllm, stub = start()
    prefix, prompt = mixed_prefix(torch_runtime, random_ids), random_ids(5)
    free = torch_runtime.generate(prefix, prompt, max_new_tokens=8, stop_ids=()).token_ids
    seen: list[int] = []

    made = vllm.generate(prefix, prompt, max_new_tokens=8, stop_ids=[free[3]], on_token=seen.append)

    end = free.index(free[3])
    assert made.token_ids == free[:end] == tuple(seen)
    assert made.stopped
    assert stub.bodies[-1]["stop_token_ids"] == [free[3]]


def test_greedy_decoding_is_asked_for_in_full(start: Any, random_ids: Any) -> None:
    _, vllm, stub = start()

    vllm.generate(None, random_ids(5), max_new_tokens=2, stop_ids=())

    said = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "ignore_eos": True}
    said |= {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert said.items() <= stub.bodies[-1].items()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_embeds_are_sent_in_the_precision_asked_for(
    start: Any, random_ids: Any, dtype: str
) -> None:
    torch_runtime, vllm, stub = start(dtype=dtype)

    vllm.generate(mixed_prefix(torch_runtime, random_ids), NOTHING, max_new_tokens=1, stop_ids=())

    assert stub.dtypes == [f"torch.{dtype}"]
    assert vllm.slot_dtypes[0] == dtype
    assert set(vllm.slot_dtypes) == {"bfloat16", "float32"}


def test_many_answers_are_at_the_server_together(start: Any, random_ids: Any) -> None:
    torch_runtime, vllm, stub = start(config=AROUND)
    shared = mixed_prefix(torch_runtime, random_ids)
    requests = [
        Request(prefix=prefix, prompt_ids=random_ids(3 + i, 20 + i))
        for i, prefix in enumerate([shared, None, shared, None])
    ]

    # No answer begins before all requests are there.
    stub.together = threading.Barrier(len(requests), timeout=10)

    made = vllm.generate_many(requests, max_new_tokens=5, stop_ids=())

    expected = torch_runtime.generate_many(requests, max_new_tokens=5, stop_ids=())
    assert [m.token_ids for m in made] == [m.token_ids for m in expected]


def test_spans_are_written_back_alike(start: Any, random_ids: Any) -> None:
    torch_runtime, vllm, _ = start(config=AROUND)
    shapes = [(16, 4), (5, 2), (1, 1)]
    payloads = torch_runtime.encode(
        [random_ids(tokens, i) for i, (tokens, _) in enumerate(shapes)], [k for _, k in shapes]
    )
    prefixes = [
        Prefix.of_payload(own, tokens=tokens, objective="ae")
        for own, (tokens, _) in zip(payloads, shapes, strict=True)
    ]

    assert vllm.write_back(prefixes) == torch_runtime.write_back(prefixes)
    assert list(vllm.batches([16, 5, 1])) == [slice(0, 3)]


def test_every_memory_and_every_user_has_a_salt_of_its_own(start: Any, random_ids: Any) -> None:
    torch_runtime, vllm, stub = start(address={"secret": "s3cret"})
    first = mixed_prefix(torch_runtime, random_ids)
    second = Prefix.of_payload(
        torch_runtime.encode([random_ids(8, 5)], [2])[0], tokens=8, objective="ft"
    )

    for runtime in (vllm, vllm.apart("anna"), vllm.apart("bert")):
        for prefix in (first, second, first, None):
            runtime.generate(prefix, random_ids(4), max_new_tokens=1, stop_ids=())

    salts = [body["cache_salt"] for body in stub.bodies]
    assert salts == stub.memories[-len(salts) :]
    assert salts[0] == salts[2]
    assert len(set(salts)) == 9
    assert not any("s3cret" in salt or "anna" in salt for salt in salts)
    assert "s3cret" not in repr(vllm) + repr(vllm.client.address)


def test_an_answer_that_nobody_wants_ends_at_the_server_too(start: Any, random_ids: Any) -> None:
    class GoneError(Exception):
        pass

    def gone(token: int) -> None:
        raise GoneError

    _, vllm, stub = start()
    stub.written = 0
    with pytest.raises(GoneError):
        vllm.generate(None, random_ids(5), max_new_tokens=200, stop_ids=(), on_token=gone)

    assert stub.written < 200


def test_nothing_is_asked_for_an_answer_of_no_tokens(start: Any, random_ids: Any) -> None:
    _, vllm, stub = start()

    assert vllm.generate(None, random_ids(5), max_new_tokens=0, stop_ids=()).token_ids == ()
    assert stub.bodies == []


def test_slots_of_another_width_are_never_sent(start: Any) -> None:
    _, vllm, stub = start()
    slots = Embeddings(slots_KD=np.zeros((2, 31), dtype=np.float32))
    prefix = Prefix.of_payload(slots, tokens=8, objective="ft")

    with pytest.raises(IncompatibleMemoryError, match="not sent"):
        vllm.generate(prefix, NOTHING, max_new_tokens=1, stop_ids=())
    assert stub.bodies == []


def test_a_cache_is_neither_saved_nor_loaded(start: Any, random_ids: Any) -> None:
    torch_runtime, vllm, _ = start()
    prefix = mixed_prefix(torch_runtime, random_ids)

    with pytest.raises(InputError, match="stays in the vLLM server"):
        vllm.save_kv(prefix)
    with pytest.raises(InputError, match="takes no key-value cache"):
        vllm.load_kv(prefix, b"")


def test_a_model_that_embeds_tokens_differently_is_refused(start: Any, build_decoder: Any) -> None:
    with pytest.raises(BaseModelError, match="embeds tokens differently"):
        start(runs=build_decoder(seed=9))


def test_a_server_that_takes_no_embeds_is_refused(start: Any) -> None:
    with pytest.raises(ServiceError, match="takes no prompt embeds") as caught:
        start(takes_embeds=False)
    assert "--enable-prompt-embeds" in str(caught.value.fix)


def test_a_model_of_another_width_is_refused(start: Any, build_decoder: Any) -> None:
    import torch

    wide = build_decoder()
    wide.set_input_embeddings(torch.nn.Embedding(288, 48))
    with pytest.raises(BaseModelError, match="another model") as caught:
        start(runs=wide)
    assert "hidden_size 32" in str(caught.value.got)


@pytest.mark.parametrize(
    ("name", "root", "wanted", "found"),
    [
        ("tiny-base", "/models/x", None, True),
        ("llm", "/models/Tiny_Base-hf", None, True),
        ("llm", "org/other", "llm", True),
        ("llm", "org/other", None, False),
        ("tiny-base", "org/other", "llm", False),
    ],
)
def test_the_model_is_found_by_the_name_of_the_base_or_the_one_given(
    start: Any, name: str, root: str, wanted: str | None, found: bool
) -> None:
    def connect() -> Any:
        return start(name=name, root=root, address={"model": wanted})

    if found:
        assert connect()[1].model.name == name
        return
    with pytest.raises(BaseModelError, match="does not serve the base model") as caught:
        connect()
    assert "--engine-model" in str(caught.value.fix)


def test_a_lora_of_the_server_is_never_asked(start: Any) -> None:
    plain = {"id": "tiny-base", "root": "x", "parent": None, "max_model_len": 99}
    tuned = {"id": "tiny-base-tuned", "root": "x", "parent": "tiny-base", "max_model_len": 99}

    assert start(listed=[tuned, plain])[1].model.name == "tiny-base"
    with pytest.raises(BaseModelError):
        start(listed=[tuned])


def test_the_key_is_sent_and_a_wrong_one_refused(start: Any) -> None:
    assert start(key="k", address={"api_key": "k"})[1].name == "vllm float32"
    with pytest.raises(ServiceError, match="refuses the key") as caught:
        start(key="k", address={"api_key": "wrong"})
    assert "ICAE_ENGINE_KEY" in str(caught.value.fix)


def test_another_server_than_vllm_is_refused(start: Any) -> None:
    with pytest.raises(ServiceError, match="no vLLM server"):
        start(listed=[{"id": "tiny-base"}])


def test_a_server_without_token_ids_is_refused(start: Any) -> None:
    with pytest.raises(ServiceError, match="without token ids"):
        start(token_ids=False)


def test_a_server_that_is_not_there_is_told_with_how_to_start_one() -> None:
    client = VllmClient(VllmAddress(url="http://127.0.0.1:9"))
    client._client.max_retries = 0

    with pytest.raises(ServiceError, match="There is no vLLM server") as caught:
        client.served()
    assert "vllm.entrypoints.openai.api_server" in str(caught.value.fix)


def test_a_connection_that_breaks_is_told(start: Any, random_ids: Any) -> None:
    _, vllm, stub = start()
    stub.breaks_after = 2

    with pytest.raises(ServiceError, match="connection broke"):
        vllm.generate(None, random_ids(5), max_new_tokens=8, stop_ids=())


def test_an_answer_that_the_server_breaks_off_is_no_answer(start: Any, random_ids: Any) -> None:
    _, vllm, stub = start()
    stub.aborts = True

    with pytest.raises(ServiceError, match="broke an answer off"):
        vllm.generate(None, random_ids(5), max_new_tokens=3, stop_ids=())


def test_a_server_that_does_not_answer_in_time_is_told(start: Any, random_ids: Any) -> None:
    _, vllm, stub = start(address={"timeout_s": 0.5})
    stub.answers_after = 0.8

    with pytest.raises(ServiceError, match="in time"):
        vllm.generate(None, random_ids(5), max_new_tokens=2, stop_ids=())


def test_what_does_not_fit_the_server_is_told(start: Any, random_ids: Any) -> None:
    _, vllm, _ = start(window=60)

    with pytest.raises(InputError, match="do not fit the context window"):
        vllm.generate(None, random_ids(50), max_new_tokens=20, stop_ids=())


def test_positions_with_gaps_are_refused(start: Any) -> None:
    with pytest.raises(InputError, match="vLLM cannot read the memories of this adapter"):
        start(config={"layout": "uniform"})


def test_a_family_whose_embeddings_are_not_known_is_refused(start: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("icae.decode.vllm.base_model.EMBEDDINGS", {"qwen2": "x"})

    with pytest.raises(BaseModelError, match="not known how") as caught:
        start()
    assert caught.value.got == "llama"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://[", ""])
def test_an_address_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no URL"):
        VllmAddress(url=url)


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_an_address_is_taken_with_or_without_v1(url: str) -> None:
    assert VllmAddress(url=url).base_url == "http://h:1/v1"


def test_a_missing_client_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)

    with pytest.raises(MissingDependencyError, match="openai client") as caught:
        VllmClient(VllmAddress(url="http://127.0.0.1:9"))
    assert "icae[vllm]" in str(caught.value.fix)


def test_the_way_to_vllm_imports_no_transformers_and_torch_only_to_send() -> None:
    code = (
        "import sys, icae.cli.ask, icae.opening, icae.decode.vllm.runtime; "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
