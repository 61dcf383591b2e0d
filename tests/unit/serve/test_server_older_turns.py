"""Old turns of a conversation over HTTP: read as memory, compressed from what was read before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openai
import pytest

from icae.compression import folding
from icae.decode.conversation import Conversation
from icae.engine import Engine
from icae.errors import InputError

KEY_VALUES = {"memory": "key-values", "framing": "between", "objective_tokens": 2}
QUESTIONS = ["Who ran there?", "Why?", "In the end?", "Where is the tin?"]


@pytest.fixture
def engine(build_engine: Any, request: pytest.FixtureRequest) -> Engine:
    return build_engine(**getattr(request, "param", KEY_VALUES))


def talk(
    server: Any, *, memory: str | None = None, key: str = "none", before: Sequence[Any] = ()
) -> list[Any]:
    """What a client gets that sends all of the conversation with every question."""
    messages, got = [*before], []
    for question in QUESTIONS:
        parts = [{"type": "text", "text": question}]
        if memory and not got:
            parts.insert(0, {"type": "memory", "id": memory})
        messages.append({"role": "user", "content": parts})
        got.append(server.chat(messages, key=key))
        messages.append({"role": "assistant", "content": got[-1].choices[0].message.content})
    return got


@pytest.mark.parametrize("about", [True, False])
def test_old_turns_are_compressed_from_what_was_read_as_in_a_conversation(
    engine: Engine, serve: Any, about: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_from_text", lambda *_: pytest.fail("it was read before"))
    server = serve(keep_turns=1)
    memory = server.make_memory() if about else None
    got = talk(server, memory=memory and memory["id"])
    text = "The fox is in the inn. " * 3
    told = Conversation(
        reader=engine,
        documents=engine.compress(text, name="fox") if about else None,
        keep_turns=1,
    )
    answers = [told.ask(question, max_new_tokens=6) for question in QUESTIONS]
    assert [one.choices[0].message.content for one in got] == [one.text for one in answers]
    assert [one.usage.prompt_tokens for one in got] == [one.prompt_tokens for one in answers]
    assert told.older is not None
    assert got[-1].icae["compressed_tokens"] == told.older.tokens


@pytest.mark.parametrize("engine", [KEY_VALUES, {}], indirect=True)
def test_a_turn_is_compressed_once_for_an_owner(
    engine: Engine, serve: Any, two_keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, anna, ben = two_keys
    server = serve(keys=keys, keep_turns=1)
    folded: list[str] = []
    fold = Engine.fold

    def noting(self: Engine, told: Conversation, question: str) -> Any:
        folded.append(told.history[0][0])
        return fold(self, told, question)

    monkeypatch.setattr(Engine, "fold", noting)
    first = talk(server, key=anna)
    assert folded == QUESTIONS[:2]
    again = talk(server, key=anna)
    assert folded == QUESTIONS[:2]
    talk(server, key=ben)
    assert folded == QUESTIONS[:2] * 2
    assert [one.choices for one in first] == [one.choices for one in again]


def test_what_the_system_says_first_stays_word_for_word(
    engine: Engine, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[Any, str]] = []
    request, from_text, anew = Engine.request, folding._from_text, []

    def noting(self: Engine, memory: Any, question: str, *, history: Any = ()) -> Any:
        read.append((memory, (*(asked for asked, _ in history), question)[0]))
        return request(self, memory, question, history=history)

    monkeypatch.setattr(Engine, "request", noting)
    monkeypatch.setattr(
        folding, "_from_text", lambda *asked: anew.append(asked) or from_text(*asked)
    )
    rules = [{"role": "system", "content": "Be kind."}, {"role": "developer", "content": "Or not."}]
    server = serve(keep_turns=1)
    got = talk(server, memory=server.make_memory()["id"], before=rules)
    firsts = [first for _, first in read]
    assert firsts[0] == firsts[1] == "Be kind.\n\nOr not.\n\nWho ran there?"
    memory, first = read[-1]
    assert first == QUESTIONS[2]
    front, document, older = memory.documents
    assert (front.source, front.spans[0].kind) == ("Be kind.\n\nOr not.", "tokens")
    assert (document.name, "Be kind" in older.source) == ("fox", False)
    assert got[-1].icae["compressed_tokens"] == older.tokens
    assert len(anew) == 1  # the second turn that left was compressed from what was read
    messages = [*rules, {"role": "assistant", "content": "Hello."}]
    assert server.chat([*messages, {"role": "user", "content": "Who?"}]).choices


@pytest.mark.parametrize("engine", [{**KEY_VALUES, "previous_spans": 1}], indirect=True)
def test_turns_are_not_folded_where_spans_rest_on_others(engine: Engine, serve: Any) -> None:
    with pytest.raises(InputError, match=r"spans that stand alone(.|\n)*Keep all turns"):
        serve(keep_turns=1)


def test_an_older_turn_that_is_longer_than_the_decoder_reads_is_refused(serve: Any) -> None:
    said = ["The fox. " * 200, "So.", "Who?"]
    messages = [
        {"role": role, "content": text}
        for role, text in zip(("user", "assistant", "user"), said, strict=True)
    ]
    messages = [*messages, {"role": "assistant", "content": "It."}, messages[2]]
    with pytest.raises(openai.BadRequestError, match="An older turn is too long") as caught:
        serve(keep_turns=1).chat(messages)
    assert caught.value.code == "context_length_exceeded"
