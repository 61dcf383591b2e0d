"""The server as a gateway: it compresses, a stand-in for vLLM answers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from icae.config.types import OWN_TOKENS
from icae.decode.checkpoint import BaseFolder
from icae.decode.vllm.client import VllmAddress, VllmClient
from icae.decode.vllm.runtime import VllmRuntime
from icae.serve.vllm_chats import VllmChats
from vllm_stub import VllmStub, vllm_stub


@pytest.fixture
def stub(engine: Any) -> Iterator[VllmStub]:
    with vllm_stub(engine.runtime.model.decoder) as stub:
        yield stub


@pytest.fixture
def gateway(engine: Any, stub: VllmStub, serve: Any, tmp_path: Path) -> Callable[..., Any]:
    """``gateway(**settings)``: a running server before the stub."""
    model = engine.runtime.model
    model.decoder.save_pretrained(tmp_path / "base")
    client = VllmClient(VllmAddress(url=stub.url, secret="s3cret"))
    client._client.max_retries = 0
    decoder = VllmRuntime(
        client,
        BaseFolder.open(tmp_path / "base"),
        model.config,
        {name: model.tokens.objective(name).detach().numpy() for name in OWN_TOKENS},
        bases=["tiny-base"],
        dtype="float32",
    )
    stub.bodies.clear()
    return lambda **settings: serve(decoder=decoder, **settings)


def test_a_memory_made_by_the_gateway_is_answered_by_the_engine(
    gateway: Any, engine: Any, stub: VllmStub, text: str
) -> None:
    server = gateway()
    messages = server.about(server.make_memory()["id"])
    assert stub.bodies == []

    answer = server.chat(messages)
    chunks = server.chat(messages, stream=True)

    expected = engine.ask(engine.compress(text, name="fox"), "Where?", max_new_tokens=6)
    assert answer.choices[0].message.content == expected.text
    assert answer.usage.prompt_tokens == expected.prompt_tokens
    assert answer.model_extra["icae"]["runtime"] == "vllm float32"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces).strip() == expected.text
    assert len(stub.bodies) == 2


def test_a_stop_text_ends_the_answer_at_the_engine_too(gateway: Any, stub: VllmStub) -> None:
    server = gateway()
    said = server.chat("Who?").choices[0].message.content
    stop = said[2:4]
    answer = server.chat("Who?", stop=stop)
    assert answer.choices[0].message.content == said[: said.index(stop)].strip()
    assert answer.choices[0].finish_reason == "stop"


def test_sampling_is_passed_on_and_log_probabilities_are_refused(
    gateway: Any, stub: VllmStub
) -> None:
    server = gateway()
    server.chat("Who?", temperature=0.5, top_p=0.9, seed=3, logit_bias={"4": 1}, n=2)
    server.chat("Who?")
    sent = [[b.get(k) for k in ("temperature", "top_p", "seed", "logit_bias")] for b in stub.bodies]
    assert sorted(sent[:2]) == [[0.5, 0.9, seed, {"4": 1.0}] for seed in (3, 4)]
    assert sent[2] == [0.0, 1.0, None, None]
    with pytest.raises(openai.BadRequestError) as caught:
        server.chat("Who?", logprobs=True)
    assert caught.value.param == "logprobs"


def test_streamed_and_whole_answers_are_at_the_engine_together(gateway: Any, stub: Any) -> None:
    server = gateway()
    stub.together = threading.Barrier(4, timeout=30)  # no answer begins before four are asked for

    def ask(stream: bool) -> Any:
        answer = server.chat("Who?", stream=stream)
        return list(answer) if stream else answer

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, (False, False, True, True)))


def test_keys_share_no_cache_of_the_engine(gateway: Any, stub: VllmStub, two_keys: Any) -> None:
    keys, anna, ben = two_keys
    server = gateway(keys=keys)
    for key in (anna, ben):
        memory_id = server.make_memory(key=key)["id"]
        for question in ("Where?", "Who?"):
            server.ask(memory_id, question, key=key)

    salts = [body["cache_salt"] for body in stub.bodies]
    assert salts[0] == salts[1] != salts[2] == salts[3]


def test_an_engine_that_is_gone_is_told_without_its_address(
    gateway: Any, stub: VllmStub, caplog: pytest.LogCaptureFixture
) -> None:
    server = gateway()
    memory_id = server.make_memory()["id"]
    stub.key = "changed"

    with pytest.raises(openai.APIStatusError) as caught:
        server.ask(memory_id)

    assert caught.value.status_code == 503
    assert stub.url not in str(caught.value.response.text)
    assert stub.url in caplog.text  # for who runs the gateway


def test_an_answer_whose_time_is_up_ends_at_the_engine_too(gateway: Any, stub: VllmStub) -> None:
    server = gateway(answer_tokens=150, request_seconds=0.5)
    stub.answers_after = 1.0
    stub.written = 0

    with pytest.raises(openai.APIStatusError) as caught:
        server.chat("Who?", max_tokens=None)

    assert caught.value.status_code == 504
    end = time.monotonic() + 30
    while len(server.service.worker._answering) and time.monotonic() < end:
        time.sleep(0.01)
    assert stub.written < 150


def test_the_gateway_ends_when_it_is_told_to_and_answers_first(gateway: Any, stub: Any) -> None:
    server = gateway()
    stub.answers_after = 0.5
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.ask, server.make_memory()["id"])
        while not stub.bodies:
            time.sleep(0.01)
        server.server.should_exit = True
        assert asked.result(30) is not None
    server.thread.join(30)
    assert not server.thread.is_alive()


def test_no_more_is_sent_than_the_engine_takes_and_the_last_room_is_for_others() -> None:
    chats = VllmChats.__new__(VllmChats)
    chats._asked = {Future(): "anna" for _ in range(55)}
    assert chats.may_take("anna", Counter())
    assert not chats.may_take("anna", Counter(ben=1))
    assert chats.may_take("carl", Counter(ben=8))
    assert not chats.may_take("carl", Counter(ben=9))
