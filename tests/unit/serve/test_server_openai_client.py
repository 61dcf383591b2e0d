from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from icae.decode.torch_rows import DecodingRows
from icae.serve.limits import Limits

MODEL = "tiny"


def test_the_official_client_lists_the_model_and_chats(shared: Any, engine: Any) -> None:
    client = shared.openai()

    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Where is the fox?"}], max_tokens=6
    )

    request = engine.request(None, "Where is the fox?")
    (expected,) = engine.answerer.answer_many([request], memory_positions=[0], max_new_tokens=6)
    assert answer.choices[0].message.content == expected.text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(request.prompt_ids)
    assert answer.usage.completion_tokens == expected.answer_tokens


def test_a_chat_about_a_memory_gets_the_answer_that_the_engine_gives(
    shared: Any, engine: Any, text: str, with_memory: Callable[..., list[Any]]
) -> None:
    made = shared.make_memory()

    answer = shared.openai().chat.completions.create(
        model=MODEL, messages=with_memory(made["id"], "Where is the fox?"), max_tokens=6
    )

    memory = engine.compress(text, name="fox")
    expected = engine.ask(memory, "Where is the fox?", max_new_tokens=6)
    assert answer.choices[0].message.content == expected.text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == expected.prompt_tokens
    assert (made["tokens"], made["positions"]) == (memory.tokens, memory.positions)
    assert made["fidelity"] == pytest.approx(memory.fidelity)


def test_a_streamed_answer_adds_up_to_the_whole_one(
    shared: Any, with_memory: Callable[..., list[Any]]
) -> None:
    client, memory_id = shared.openai(), shared.make_memory()["id"]
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": with_memory(memory_id, "Where is the fox?"),
        "max_tokens": 7,
    }

    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )

    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts).strip() == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage


def test_an_earlier_turn_changes_the_answer_as_the_engine_has_it(shared: Any, engine: Any) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "A fox."},
        {"role": "user", "content": "Where?"},
    ]
    answer = shared.openai().chat.completions.create(model=MODEL, messages=messages, max_tokens=6)

    request = engine.request(None, "Where?", history=[("Be short.\n\nWho?", "A fox.")])
    (expected,) = engine.answerer.answer_many([request], memory_positions=[0], max_new_tokens=6)
    assert answer.choices[0].message.content == expected.text


def test_an_unmodified_client_with_a_long_message_reads_fewer_positions(
    serve: Callable[..., Any], engine: Any, text: str
) -> None:
    question = "Where is it?"
    server = serve(longest_message=32)
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"{text}\n\n{question}"}],
        "max_tokens": 6,
    }
    answer = server.openai().chat.completions.create(**asked)

    memory = engine.compress(text, verify=False)
    expected = engine.ask(memory, question, max_new_tokens=6)
    assert answer.choices[0].message.content == expected.text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens < engine.count_tokens(text)

    before = server.counted("icae_context_tokens_total")
    server.openai().chat.completions.create(**asked)
    assert server.counted("icae_context_tokens_total") == before  # the second time it is remembered


def test_chats_that_wait_together_are_written_together_each_with_its_own_answer(
    shared: Any,
    engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    with_memory: Callable[..., list[Any]],
) -> None:
    sizes: list[int] = []
    step = DecodingRows.step

    def noting(self: Any) -> Any:
        sizes.append(len(self))
        return step(self)

    monkeypatch.setattr(DecodingRows, "step", noting)
    memory_id = shared.make_memory()["id"]
    questions = [f"Where is number {n}?" for n in range(12)]

    def ask(question: str) -> str | None:
        answer = shared.openai().chat.completions.create(
            model=MODEL, messages=with_memory(memory_id, question), max_tokens=6
        )
        return answer.choices[0].message.content

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, questions))

    memory = engine.compress(text, name="fox")
    assert answers == [engine.ask(memory, q, max_new_tokens=6).text for q in questions]
    assert max(sizes) > 1


def test_a_client_without_the_right_key_is_told_so(
    serve: Callable[..., Any], two_keys: tuple[Any, str, str]
) -> None:
    server = serve(keys=two_keys[0])

    with pytest.raises(openai.AuthenticationError):
        server.openai("icae-wrong").models.list()
    assert [model.id for model in server.openai(two_keys[1]).models.list()] == [MODEL]


def test_what_is_not_offered_is_refused_by_name(shared: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="n is not supported") as refused:
        shared.openai().chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], n=2
        )
    assert refused.value.param == "n"


def test_a_chat_joins_an_answer_that_is_being_written(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(limits=Limits(answer_tokens=20))
    sizes: list[int] = []
    step = DecodingRows.step

    def waiting_for_another(self: Any) -> Any:
        while len(sizes) == 3 and not server.counted("icae_chats_waiting"):
            time.sleep(0.005)
        sizes.append(len(self))
        return step(self)

    monkeypatch.setattr(DecodingRows, "step", waiting_for_another)
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Who?"}]}
    long = server.openai().chat.completions.create(**asked, max_tokens=20, stream=True)
    assert next(long).choices[0].delta.role == "assistant"
    short = server.openai().chat.completions.create(**asked, max_tokens=3)
    written = "".join(chunk.choices[0].delta.content or "" for chunk in long)

    assert sizes == [1] * 5 + [2] * 2 + [1] * 12
    assert short.choices[0].message.content
    assert written.strip().startswith(short.choices[0].message.content)
