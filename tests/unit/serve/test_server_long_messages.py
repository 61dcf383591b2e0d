from __future__ import annotations

import functools
import itertools
import threading
from typing import Any

import numpy as np
import pytest

from icae.compression import living
from icae.errors import RequestError
from icae.serve.chat_models import ChatRequest
from icae.serve.config import ServerConfig
from icae.serve.jobs import SLICE_S, Tokenizing, changing, compressing, in_slices
from icae.serve.memory_models import MemoryRequest
from icae.serve.messages import Messages, conversation, split_message
from icae.serve.metrics import Metrics

LONG = " ".join(["word"] * 60)
TWICE = f"{LONG}\n\n{LONG}"


@pytest.mark.parametrize(
    ("role", "text", "stays", "memory"),
    [
        ("user", "one two three", "one two three", ""),
        ("user", f"{LONG}\n\nWho is it?", "Who is it?", LONG),
        ("user", f"{LONG}\nWho is it?", "Who is it?", LONG),
        ("user", f"Read this.\n\n{TWICE}\n\nWho is it?", "Read this.\n\nWho is it?", TWICE),
        ("user", f"Who is it?\n\n{TWICE}", "Who is it?", TWICE),
        ("user", f"Who is it?\n\n{LONG}", "Who is it?", LONG),
        ("user", f"{TWICE}\n\nWho is it?\n\n", "Who is it?", TWICE),
        ("user", LONG, LONG, ""),
        ("system", f"{LONG}\n\nBe kind.", "", f"{LONG}\n\nBe kind."),
        ("assistant", f"{LONG}\n\nYes.", f"{LONG}\n\nYes.", ""),
    ],
)
def test_of_a_long_message_the_question_stays_text_and_the_bulk_becomes_memory(
    role: Any, text: str, stays: str, memory: str
) -> None:
    split = split_message(role, text, longest=20, count=lambda text: len(text.split()))
    assert split == (stays, memory)


def test_a_conversation_becomes_turns_and_a_question() -> None:
    said = [("system", "S"), ("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")]
    assert conversation(said) == ("d", [("S\n\na", "b\n\nc")])
    with pytest.raises(RequestError, match="starts with an answer"):
        conversation([("assistant", "x"), ("user", "y")])


def finished(steps: Any) -> tuple[int, Any]:
    """How many steps there were, and what came of them."""
    for count in range(10_000):
        try:
            next(steps)
        except StopIteration as end:
            return count, end.value
    raise AssertionError("it does not end")


def test_no_slice_takes_much_longer_than_it_may(engine: Any) -> None:
    now, text, seconds = 0.0, "The inn is near the end. " * 40, [0.0]

    def encode(spans: Any) -> Any:
        nonlocal now
        pace = 0.002 if len(seconds) < 6 else 0.006  # seconds a token: it gets slower
        now += pace * sum(span.tokens for span in spans)
        seconds.append(now)
        return engine.compressor.encode(spans, ratio=4.0, verify=False)

    tokens = engine.compressor.tokenize(text)
    steps = in_slices(engine.compressor, tokens, name="n", encode=encode, clock=lambda: now)
    _, memory = finished(steps)
    taken = [after - before for before, after in itertools.pairwise(seconds)]
    assert max(taken[:5]) <= SLICE_S
    assert max(taken[6:]) <= SLICE_S
    assert len(taken) < len(memory.spans)
    whole = engine.compress(text, name="n", ratio=4.0, verify=False)
    assert memory.documents[0].source == text
    np.testing.assert_allclose(memory.slots, whole.slots, rtol=1e-4, atol=1e-4)


def test_a_text_is_tokenized_while_the_model_works_for_others(engine: Any) -> None:
    tokenizing, go_on = Tokenizing(engine.compressor), threading.Event()
    tokenizing.pool.submit(go_on.wait, 1)  # another text takes long
    wanted = MemoryRequest(text=LONG, name="n")
    steps = compressing(engine, tokenizing, wanted, ratio=4.0)
    assert next(steps) == (0, 0)
    go_on.set()
    assert finished(steps)[1].documents[0].source == LONG


def test_a_document_and_a_change_have_the_recall_that_python_measures(build_engine: Any) -> None:
    engine = build_engine(memory="key-values", framing="between", objective_tokens=2)
    tokenizing, wanted = Tokenizing(engine.compressor), MemoryRequest(text=LONG, name="n")
    _, made = finished(compressing(engine, tokenizing, wanted, ratio=4.0))
    change = functools.partial(
        living.change, document=0, chars=slice(9, 9), text="fox " * 30, ratio=None
    )
    _, changed = finished(changing(engine, tokenizing, made, change))
    of_python = engine.compress(LONG, name="n", ratio=4.0)
    for own, expected in [
        (made, of_python),
        (changed, engine.replace(of_python, 9, 9, "fox " * 30)),
    ]:
        found = [span.recall for span in expected.spans]
        assert None not in found
        assert [span.recall for span in own.spans] == pytest.approx(found)


@pytest.mark.parametrize("chars", [slice(9, 9), slice(0, 4)])
def test_a_change_is_made_in_slices_to_the_memory_that_python_makes(
    engine: Any, chars: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icae.serve.jobs.MOMENT_S", 60.0)  # tokenizing is no step, however slow
    monkeypatch.setattr("icae.serve.jobs.MOST_TOKENS", 64)
    before = engine.compress("The fox.\n", name="n", ratio=4.0)

    def changed(memory: Any, chars: slice, text: str) -> Any:
        def change(compressor: Any, memory: Any) -> Any:
            return living.change(compressor, memory, 0, chars, text, None)

        return finished(changing(engine, Tokenizing(engine.compressor), memory, change))

    count, memory = changed(before, chars, LONG)
    expected = engine.replace(before, chars.start, chars.stop, LONG)
    assert count > 3
    assert memory.documents[0].source == expected.documents[0].source
    assert [span.ratio for span in memory.spans] == [span.ratio for span in expected.spans]
    np.testing.assert_allclose(memory.slots, expected.slots, rtol=1e-4, atol=1e-4)
    _, cut = changed(memory, slice(4, 200), "")
    assert cut.documents[0].source == engine.replace(memory, 4, 200, "").documents[0].source


@pytest.fixture
def conversations(engine: Any) -> Messages:
    return Messages(engine, config=ServerConfig(longest_message=20), metrics=Metrics())


def asked(text: str) -> ChatRequest:
    return ChatRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": f"{text}\n\nWho?"}]}
    )


def test_the_bulk_of_a_long_message_is_compressed_once(
    conversations: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icae.serve.jobs.MOMENT_S", 60.0)  # counting is no step, however slow
    first, said = finished(conversations.read("anna", asked(LONG)))
    again, same = finished(conversations.read("anna", asked(LONG)))
    assert said.texts == [("user", "Who?")]
    assert (first > 1, again, same.memories[0] is said.memories[0]) == (True, 0, True)
    assert finished(conversations.read("ben", asked(LONG)))[0] > 1


def test_two_answers_wait_for_one_memory(conversations: Messages) -> None:
    first, second = (conversations.read("anna", asked(LONG)) for _ in range(2))
    next(first)
    next(second)
    _, said = finished(first)
    assert finished(second)[1].memories[0] is said.memories[0]


def test_of_a_memory_that_was_not_finished_nothing_is_kept(
    conversations: Messages, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = conversations.read("anna", asked(LONG))
    next(given_up)
    next(given_up)
    given_up.close()
    with monkeypatch.context() as broken:
        broken.setattr(type(engine.compressor), "encode", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finished(conversations.read("anna", asked(LONG)))
    count, said = finished(conversations.read("anna", asked(LONG)))
    assert count > 1
    assert said.memories[0].documents[0].source == LONG


@pytest.mark.parametrize("form", [{}, {"memory": "key-values", "framing": "between"}])
def test_of_more_bytes_than_are_kept_nothing_is_kept(
    build_engine: Any, form: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build_engine(objective_tokens=2, **form)
    monkeypatch.setattr("icae.serve.messages.CACHED_BYTES", 100)
    conversations = Messages(engine, config=ServerConfig(longest_message=20), metrics=Metrics())
    _, said = finished(conversations.read("anna", asked(LONG)))
    _, again = finished(conversations.read("anna", asked(LONG)))
    assert again.memories[0] is not said.memories[0]
