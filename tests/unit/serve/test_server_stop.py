"""Texts that end an answer, and history as clients send it, through OpenAI's client."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from icae.serve.stops import StoppedStream


class Characters:
    """A tokenizer of which each token is one piece of `texts`."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.texts[i] for i in ids)


@pytest.mark.parametrize(
    ("texts", "stops", "shown"),
    [
        (("ab", "cd", "ef"), ["bc"], ["a"]),
        (("a", "\n", "\nQ", ": b"), ["\n\n", "Q:"], ["a"]),
        (("a", "\n", "b"), ["\n\n"], ["a", "\nb"]),
        (("a", "\n"), ["\n\n"], ["a", "\n"]),
        (("aab",), ["ab", "aa"], []),
        (("xa", "aa", "b"), ["aab"], ["x", "a"]),
        (("a", "b"), [], ["a", "b"]),
    ],
)
def test_no_part_of_a_stop_text_is_shown(
    texts: tuple[str, ...], stops: list[str], shown: list[str]
) -> None:
    pieces: list[str] = []
    streams = [StoppedStream(Characters(*texts), on, stops) for on in (pieces.append, None)]
    for stream in streams:
        for token in range(len(texts)):
            if not stream.stopped:
                stream.add(token)
    assert [stream.close() for stream in streams] == ["".join(shown)] * 2
    assert pieces == shown


def test_an_answer_ends_before_a_stop_text_streamed_or_not(shared: Any) -> None:
    whole = shared.chat("Where is the fox?", max_tokens=8)
    said = whole.choices[0].message.content
    start, stop = next(
        (at, said[at : at + 3])
        for at in range(1, len(said) - 4)
        if said.find(said[at : at + 3]) == at and said[at] != " "
    )
    written = shared.counted("icae_answer_tokens_total")
    for stops in (stop, ["nothing like it", stop]):
        answer = shared.chat("Where is the fox?", max_tokens=8, stop=stops)
        assert answer.choices[0].message.content == said[:start].strip()
        assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < whole.usage.completion_tokens
    assert (
        shared.counted("icae_answer_tokens_total") - written == 2 * answer.usage.completion_tokens
    )
    chunks = list(shared.chat("Where is the fox?", max_tokens=8, stop=stop, stream=True))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces).strip() == said[:start].strip()
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stop", [["a", "b", "c", "d", "e"], "", [3]])
def test_stop_texts_that_cannot_be_used_are_refused_by_name(shared: Any, stop: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        shared.chat("Where?", stop=stop)
    assert str(caught.value.param).startswith("stop")


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "inn"}'}}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"content": None, "tool_calls": [CALL]}, 'look({"at": "inn"})'),
        ({"tool_calls": [CALL]}, 'look({"at": "inn"})'),
        ({"content": "I look.", "tool_calls": [CALL]}, 'I look.\nlook({"at": "inn"})'),
        ({"content": [{"type": "text", "text": "A fox."}], "name": "bot"}, "A fox."),
        ({"content": "A fox.", "refusal": None, "audio": None, "tool_calls": None}, "A fox."),
        ({"content": None}, ""),
    ],
)
def test_answers_of_before_are_read_as_clients_send_them(
    shared: Any, engine: Any, answer: Any, told: str
) -> None:
    messages = [
        {"role": "user", "content": "Who?", "name": "anna"},
        {"role": "assistant", **answer},
        {"role": "user", "content": "Where?"},
    ]
    request = engine.request(None, "Where?", history=[("Who?", told)])
    assert shared.chat(messages).usage.prompt_tokens == len(request.prompt_ids)


def test_a_result_of_a_tool_is_refused_by_name(shared: Any) -> None:
    messages = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "A fox."},
        {"role": "user", "content": "Where?"},
    ]
    with pytest.raises(openai.BadRequestError) as caught:
        shared.chat(messages)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages[2].role")
