from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from icae.decode.torch_rows import DecodingRows


def content(answer: Any) -> str:
    return answer.choices[0].message.content


def streamed(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize(
    ("messages", "question", "history"),
    [
        ("Where is the fox?", "Where is the fox?", []),
        (
            [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "Who?"},
                {"role": "assistant", "content": "A fox."},
                {"role": "user", "content": "Where?"},
            ],
            "Where?",
            [("Be short.\n\nWho?", "A fox.")],
        ),
    ],
)
def test_the_official_client_gets_the_answer_of_the_engine(
    shared: Any, engine: Any, messages: Any, question: str, history: Any
) -> None:
    answer = shared.chat(messages)
    request = engine.request(None, question, history=history)
    (expected,) = engine.answerer.answer_many([request], memory_positions=[0], max_new_tokens=6)
    assert content(answer) == expected.text
    assert answer.usage.prompt_tokens == len(request.prompt_ids)
    assert answer.usage.completion_tokens == expected.answer_tokens


def test_a_chat_about_a_memory_gets_the_answer_that_the_engine_gives(
    shared: Any, engine: Any, text: str
) -> None:
    made = shared.make_memory()
    answer = shared.chat(shared.about(made["id"], "Where is the fox?"))

    memory = engine.compress(text, name="fox")
    expected = engine.ask(memory, "Where is the fox?", max_new_tokens=6)
    assert content(answer) == expected.text
    assert answer.usage.prompt_tokens == expected.prompt_tokens
    assert (made["tokens"], made["positions"]) == (memory.tokens, memory.positions)
    assert made["fidelity"] == pytest.approx(memory.fidelity)


def test_a_streamed_answer_adds_up_to_the_whole_one(shared: Any) -> None:
    messages = shared.about(shared.make_memory()["id"])
    whole = shared.chat(messages)
    chunks = list(shared.chat(messages, stream=True, stream_options={"include_usage": True}))
    assert streamed(chunks).strip() == content(whole)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage


def test_an_unmodified_client_with_a_long_message_reads_fewer_positions(
    serve: Any, engine: Any, text: str
) -> None:
    server = serve(longest_message=32)
    answer = server.chat(f"{text}\n\nWhere is it?")
    memory = engine.compress(text, verify=False)
    assert content(answer) == engine.ask(memory, "Where is it?", max_new_tokens=6).text
    assert answer.usage.prompt_tokens < engine.count_tokens(text)

    before = server.counted("icae_context_tokens_total")
    server.chat(f"{text}\n\nWhere is it?")
    assert server.counted("icae_context_tokens_total") == before  # the second time it is remembered


def test_chats_that_wait_together_are_written_together_each_with_its_own_answer(
    shared: Any, engine: Any, text: str
) -> None:
    def joined() -> float:
        names = ("icae_answers_together_sum", "icae_answers_together_count")
        return shared.counted(names[0]) - shared.counted(names[1])

    memory_id, before = shared.make_memory()["id"], joined()
    questions = [f"Where is number {n}?" for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda question: shared.ask(memory_id, question), questions))

    memory = engine.compress(text, name="fox")
    assert answers == [engine.ask(memory, q, max_new_tokens=6).text for q in questions]
    assert joined() > before


def test_a_chat_joins_an_answer_that_is_being_written(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(answer_tokens=20)
    sizes: list[int] = []
    step = DecodingRows.step

    def waiting_for_another(self: Any) -> Any:
        while len(sizes) == 3 and not server.counted("icae_chats_waiting"):
            time.sleep(0.005)
        sizes.append(len(self))
        return step(self)

    monkeypatch.setattr(DecodingRows, "step", waiting_for_another)
    long = server.chat("Who?", max_tokens=20, stream=True)
    assert next(long).choices[0].delta.role == "assistant"
    short = content(server.chat("Who?", max_tokens=3))

    written = streamed(long)
    assert sizes == [1] * 4 + [2] * 2 + [1] * 13
    assert short
    assert written.strip().startswith(short)
