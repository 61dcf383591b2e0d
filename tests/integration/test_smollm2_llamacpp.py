"""SmolLM2-135M answering in llama.cpp, as a user gets it; `make test-llamacpp`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from icae import engine as api
from icae.model.base_files import DEFAULT_BASE

pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed; `make test-llamacpp` installs it"
)
pytestmark = pytest.mark.real_model

TEXT = (
    "The lighthouse at Cape Wickham was built in 1861 from local granite. It is 48 metres tall, "
    "the tallest in Australia, and its light can be seen from 24 nautical miles away."
)
KEY_VALUES, EMBEDDINGS = "smollm2-135m-kv", "smollm2-135m"
QUESTION = "What was the lighthouse built from?"

ASK = """
import atexit, json, sys
def tell():
    status = open("/proc/self/status").read().splitlines()
    peak = next(int(l.split()[1]) * 1024 for l in status if l.startswith("VmHWM"))
    heavy = [name for name in ("torch", "transformers", "peft") if name in sys.modules]
    print(json.dumps({"peak": peak, "heavy": heavy}), file=sys.stderr)
atexit.register(tell)
from icae.cli.app import main
main()
"""


@pytest.fixture(scope="module")
def engine() -> api.Engine:
    """SmolLM2-135M in float32 with the adapter whose memories are embeddings."""
    return api.load(EMBEDDINGS, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def memory_file(engine: api.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memories") / "lighthouse.icae"
    engine.compress(TEXT, ratio=4, verify=False).save(path)
    return path


def ask(memory_file: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Ask in a new process: the payload, what the process tells of itself, and its messages."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, "ask", str(memory_file), QUESTION, "--json", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *messages, told = done.stderr.splitlines()
    return json.loads(done.stdout), json.loads(told), "\n".join(messages)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_an_answer_from_a_cached_memory_needs_neither_torch_nor_much_memory(
    memory_file: Path,
) -> None:
    options = ("--runtime", "llamacpp", "--max-new-tokens", "8")
    first, _, messages = ask(memory_file, "--kv", *options)
    assert "Key-value cache kept" in messages
    assert memory_file.with_name(f"{memory_file.name}.llamacpp.kv").exists()

    second, told, messages = ask(memory_file, *options)

    assert told["heavy"] == []
    assert told["peak"] < 600e6
    assert second["runtime"] == "llamacpp bfloat16"
    assert second["answer"] == first["answer"] != ""
    assert "not used" not in messages


@pytest.fixture(scope="module")
def key_values() -> api.Engine:
    """SmolLM2-135M in float32 with the adapter whose memories are keys and values."""
    return api.load(KEY_VALUES, device="cpu", dtype="float32")


def test_keys_and_values_are_answered_from_as_in_torch_and_without_it(
    key_values: api.Engine, tmp_path: Path
) -> None:
    from icae.opening import open_llamacpp

    memory = key_values.compress(TEXT, ratio=4, verify=False) + key_values.verbatim(" It is white.")
    memory.save(tmp_path / "lighthouse.icae")
    reader = open_llamacpp(KEY_VALUES)

    questions = [(memory, QUESTION), (memory, "How tall is it?"), (memory, "Where is it?")]
    wanted = [key_values.ask(*asked, max_new_tokens=12).text for asked in questions]
    assert [reader.ask(*asked, max_new_tokens=12).text for asked in questions] == wanted
    together = reader.ask_many(questions, max_new_tokens=1)
    assert [answer.memory_positions for answer in together] == [memory.positions] * 3

    options = ("--adapter", KEY_VALUES, "--runtime", "llamacpp", "--max-new-tokens", "12")
    payload, told, _ = ask(tmp_path / "lighthouse.icae", *options)
    assert payload["answer"] == wanted[0]
    assert told["heavy"] == []


def test_both_runtimes_answer_alike(engine: api.Engine, memory_file: Path) -> None:
    import torch

    from icae.decode.prefix import Prefix
    from icae.memory import Memory
    from icae.model.prompts import render_prompt
    from icae.opening import open_llamacpp

    memory = Memory.load(memory_file)
    prefix, reader = Prefix.of_memory(memory, "ft"), open_llamacpp(EMBEDDINGS)
    prompt = render_prompt(engine.tokenizer, QUESTION)
    assert render_prompt(reader.tokenizer, QUESTION).tolist() == prompt.tolist()

    made = reader.decoder.generate(prefix, prompt, max_new_tokens=6, stop_ids=()).token_ids

    runtime = engine.runtime
    row = torch.cat([runtime.form.inputs(prefix), runtime.read_tokens([*prompt, *made])])
    with torch.inference_mode():
        logits = runtime.model.decoder(inputs_embeds=row[None], logits_to_keep=7).logits[0, :-1]
    log_probs = torch.log_softmax(logits, dim=-1)
    best = log_probs.max(dim=-1).values
    written = log_probs.gather(1, torch.tensor(made)[:, None])[:, 0]
    # bfloat16 against float32: each token written is the best one, or as good as.
    assert float((best - written).max()) < 0.25


def test_the_tokenizer_without_transformers_gives_the_same_ids(
    engine: api.Engine, document: Path
) -> None:
    from icae.model.base_files import tokenizer_hash
    from icae.model.fast_tokenizer import FastTokenizer
    from icae.model.prompts import tokenize
    from icae.opening import base_folder

    fast = FastTokenizer(base_folder(DEFAULT_BASE))
    text = document.read_text(encoding="utf-8")
    ids = tokenize(engine.tokenizer, text)

    assert tokenize(fast, text).tolist() == ids.tolist()
    assert fast.decode(ids.tolist()) == engine.tokenizer.decode(ids.tolist())
    assert tokenizer_hash(fast) == engine.info.tokenizer_hash
