"""SmolLM2-135M in a stock vLLM server, as a user gets it; `make test-vllm`.

The server is started here with the Python in $ICAE_VLLM_PYTHON, or is the one at
$ICAE_VLLM_URL: the base model in float32, --enable-prompt-embeds, --block-size 32.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest

from icae import engine as api
from icae.decode.prefix import Prefix
from icae.decode.vllm.client import VllmAddress, embeds_prompt
from icae.decode.vllm.runtime import VllmRuntime
from icae.errors import BaseModelError, InputError, ServiceError
from icae.memory import Memory
from icae.model.base_files import DEFAULT_BASE
from icae.opening import base_folder, open_vllm

URL = os.environ.get("ICAE_VLLM_URL")
PYTHON = os.environ.get("ICAE_VLLM_PYTHON")

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(not (URL or PYTHON), reason="`make test-vllm` installs and starts vLLM"),
    pytest.mark.timeout(3600),
]

BLOCK = 32
"""Positions that the server keeps or forgets together."""

START_SECONDS = 1800
TEXT = (Path(__file__).parents[2] / "examples" / "pep-0347.txt").read_text(encoding="utf-8")[:1200]
QUESTIONS = ["What is this text about?", "Who wrote it?", "Name one reason for the move."]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vLLM server with the base model."""
    if URL:
        _wait(URL)
        yield URL
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "--model": str(base_folder(DEFAULT_BASE)),
        "--served-model-name": DEFAULT_BASE,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": "float32",
        "--max-model-len": "1024",
        "--max-num-seqs": "4",
        "--max-num-batched-tokens": "1024",
        "--block-size": str(BLOCK),
    }
    options = [word for pair in settings.items() for word in pair]
    switches = ["--enable-prompt-embeds", "--enforce-eager"]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", *options, *switches],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | own,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        try:
            _wait(address, alive=lambda: server.poll() is None)
        except AssertionError as error:
            error.add_note(log.read_text()[-3000:])
            raise
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _wait(address: str, *, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and alive():
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"there is no server at {address}")


@pytest.fixture(scope="module")
def memory(engine: api.Engine) -> Memory:
    """Slots of a document and verbatim tokens of another."""
    slots = engine.compress(TEXT, ratio=2, name="pep-0347", verify=False)
    return slots + engine.verbatim("The meeting was moved to Thursday, 14 May.", name="note")


@pytest.fixture(scope="module")
def reader(url: str) -> Any:
    return open_vllm(VllmAddress(url=url, timeout_s=600), dtype="float32")


def prefix_cache(url: str) -> dict[str, float]:
    """Positions that the server looked up in its prefix cache, and those found, so far."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:
        text = response.read().decode()
    found = {}
    for name in ("queries", "hits"):
        values = re.findall(rf"^vllm:prefix_cache_{name}_total{{.*}} (\S+)$", text, re.MULTILINE)
        assert values, text[:2000]
        found[name] = sum(float(value) for value in values)
    return found


def test_the_server_writes_the_same_greedy_tokens_as_torch(
    engine: api.Engine, memory: Memory, reader: Any
) -> None:
    pieces: list[str] = []
    for question in QUESTIONS:
        answer = reader.ask(memory, question, max_new_tokens=12, on_text=pieces.append)
        expected = engine.ask(memory, question, max_new_tokens=12)
        assert answer.text == expected.text != ""
        assert answer.prompt_tokens == expected.prompt_tokens
        assert answer.answer_tokens == expected.answer_tokens
        assert answer.finished == expected.finished
    assert len(pieces) > len(QUESTIONS)


def test_a_second_question_finds_the_memory_in_the_cache_and_another_user_does_not(
    url: str, memory: Memory, reader: Any
) -> None:
    runtime = reader.decoder.apart(f"run {time.time_ns()}")
    prefix = Prefix.of_memory(memory, "ft")
    whole_blocks = prefix.positions // BLOCK * BLOCK

    def hits(who: VllmRuntime, question: str) -> float:
        prompt = np.asarray(reader.tokenizer(question)["input_ids"], dtype=np.int64)
        before = prefix_cache(url)
        who.generate(prefix, prompt, max_new_tokens=1, stop_ids=())
        after = prefix_cache(url)
        assert after["queries"] > before["queries"]
        return after["hits"] - before["hits"]

    assert whole_blocks >= 2 * BLOCK
    assert hits(runtime, QUESTIONS[0]) == 0
    assert hits(runtime, QUESTIONS[1]) >= whole_blocks
    assert hits(runtime.apart("another user"), QUESTIONS[1]) == 0


def test_the_command_line_asks_the_server(
    url: str, memory: Memory, engine: api.Engine, tmp_path: Path
) -> None:
    memory.save(tmp_path / "pep.icae")
    command = ["-m", "icae", "ask", str(tmp_path / "pep.icae"), QUESTIONS[0]]
    options = ["--engine", url, "--dtype", "float32", "--max-new-tokens", "8", "--json"]

    done = subprocess.run(
        [sys.executable, *command, *options], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    payload = json.loads(done.stdout)
    assert payload["runtime"] == "vllm float32"
    assert payload["answer"] == engine.ask(memory, QUESTIONS[0], max_new_tokens=8).text


def test_refusals_of_the_server_say_what_to_do(url: str, memory: Memory, reader: Any) -> None:
    runtime = reader.decoder

    def ask(model: str, width: int, tokens: int) -> None:
        embeds = np.zeros((4, width), dtype=np.float32)
        prompt = embeds_prompt(embeds, "float32")
        list(runtime.client.write(model, prompt, limit=tokens, salt="x"))

    with pytest.raises(BaseModelError, match="another model"):
        ask(runtime.model.name, 64, 1)
    with pytest.raises(ServiceError, match="does not have this model"):
        ask("no-such-model", 576, 1)
    with pytest.raises(InputError, match="context window"):
        ask(runtime.model.name, 576, 100_000)
    with pytest.raises(InputError, match="context window"):
        reader.ask(memory, QUESTIONS[0], max_new_tokens=100_000)
    with pytest.raises(BaseModelError, match="does not serve the base model"):
        open_vllm(VllmAddress(url=url, model="no-such-model"))


def test_spans_are_written_back_as_by_torch(
    engine: api.Engine, memory: Memory, reader: Any
) -> None:
    made = reader.reconstruct(memory, spans=[0, 1])

    expected = engine.reconstruct(memory, spans=[0, 1])
    assert [m.token_ids for m in made] == [e.token_ids for e in expected]


def test_many_answers_and_the_full_context_are_the_same_too(
    engine: api.Engine, memory: Memory, reader: Any
) -> None:
    asked = [(memory, QUESTIONS[0]), (TEXT[:600], QUESTIONS[0]), (memory, QUESTIONS[2])]

    made = reader.ask_many(asked, max_new_tokens=8)

    expected = [
        engine.ask(memory, QUESTIONS[0], max_new_tokens=8),
        engine.ask_text(TEXT[:600], QUESTIONS[0], max_new_tokens=8),
        engine.ask(memory, QUESTIONS[2], max_new_tokens=8),
    ]
    assert [m.text for m in made] == [e.text for e in expected]


def test_the_gateway_compresses_and_the_server_answers_its_clients(
    url: str, engine: api.Engine, serving: Callable[..., Any], tmp_path: Path
) -> None:
    expected = [
        engine.ask(engine.compress(TEXT, ratio=2), question, max_new_tokens=8).text
        for question in QUESTIONS[:2]
    ]
    with serving(tmp_path / "memories.db", "--engine", url) as (_, gateway):
        address = f"{gateway}/v1"
        made = httpx2.post(
            f"{address}/memories", json={"text": TEXT, "ratio": 2}, timeout=600
        ).json()
        while made["status"] == "in_progress":
            time.sleep(1)
            made = httpx2.get(f"{address}/memories/{made['id']}", timeout=600).json()
        client = openai.OpenAI(base_url=address, api_key="none", timeout=600, max_retries=0)

        def ask(question: str, *, stream: bool) -> Any:
            parts = [{"type": "memory", "id": made["id"]}, {"type": "text", "text": question}]
            return client.chat.completions.create(
                model=client.models.list().data[0].id,
                messages=[{"role": "user", "content": parts}],  # type: ignore[list-item,misc]
                max_tokens=8,
                stream=stream,
            )

        whole = ask(QUESTIONS[0], stream=False)
        before = prefix_cache(url)["hits"]
        pieces = [chunk.choices[0].delta.content or "" for chunk in ask(QUESTIONS[1], stream=True)]
        hits = prefix_cache(url)["hits"] - before

    assert whole.choices[0].message.content == expected[0]
    assert whole.model_extra["icae"]["runtime"] == "vllm float32"
    assert "".join(pieces).strip() == expected[1]
    assert hits >= made["positions"] // BLOCK * BLOCK > 0
