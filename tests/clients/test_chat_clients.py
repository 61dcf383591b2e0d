"""Client x feature: each test is a cell of the table in docs/serving.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.clients.chat_clients import CLIENTS, ChatClient, LiteLlm, LlamaIndex, Llm
from tests.clients.conftest import AUTO_COMPRESS, LONG, Served

QUESTION = [{"role": "user", "content": "Where is the fox?"}]
START = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Who?"}]
LAST = {"role": "user", "content": "Where?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture(params=CLIENTS)
def client(request: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ChatClient:
    made = CLIENTS[request.param]
    for package in ("litellm", made.needs):
        pytest.importorskip(package, reason=f"{package} is in `make test-clients` alone")
    if isinstance(made, Llm):
        monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
        Llm.folder = tmp_path
    return made


@pytest.fixture
def able(client: ChatClient, request: Any) -> ChatClient:
    """A client that has what `llm` has no option for."""
    if isinstance(client, Llm):
        pytest.skip("llm has no option for it")
    return client


def texts(response: Any) -> list[str]:
    return [choice["message"]["content"] for choice in response["choices"]]


def test_chat(client: ChatClient, served: Served) -> None:
    told, expected = client.ask(served, QUESTION), served.chat(QUESTION)
    assert told.texts == texts(expected)
    assert told.texts[0]
    assert told.prompt_tokens == expected["usage"]["prompt_tokens"]


def test_stream(client: ChatClient, served: Served) -> None:
    pieces = list(client.stream(served, QUESTION))
    assert "".join(pieces).strip() == texts(served.chat(QUESTION))[0]
    assert len([piece for piece in pieces if piece]) > 1


def test_history(client: ChatClient, served: Served) -> None:
    (answer,) = texts(served.chat(START))
    history = [*START, {"role": "assistant", "content": answer}, LAST]
    told = client.ask(served, history).texts
    assert told == texts(served.chat(history)) != texts(served.chat([LAST]))


def test_stop(client: ChatClient, served: Served) -> None:
    (whole,) = texts(served.chat(QUESTION))
    stop = whole[3:5]
    assert client.ask(served, QUESTION, stop=stop).texts == [whole[: whole.index(stop)].strip()]


def test_temperature_and_seed(client: ChatClient, served: Served) -> None:
    asked = {"temperature": 1.8, "max_tokens": 8}
    drawn = [client.ask(served, QUESTION, seed=seed, **asked).texts[0] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_logprobs(able: ChatClient, served: Served) -> None:
    told = able.ask(served, QUESTION, logprobs=True, max_tokens=4)
    assert len(told.logprobs) == 4
    assert all(one < 0 for one in told.logprobs)


def test_n(able: ChatClient, served: Served) -> None:
    asked = {"n": 3, "temperature": 1.8, "seed": 1, "max_tokens": 8}
    assert able.ask(served, QUESTION, **asked).texts == texts(served.chat(QUESTION, **asked))


def test_history_with_a_call_of_a_tool(able: ChatClient, served: Served) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    messages = [QUESTION[0], call, LAST]
    assert able.ask(served, messages).texts == texts(served.chat(messages))


def test_long_context(client: ChatClient, served: Served) -> None:
    messages = [{"role": "user", "content": f"{LONG}\n\nWhere is the fox?"}]
    told = client.ask(served, messages)
    assert told.texts == texts(served.chat(messages))
    as_text = served.chat(messages, auto_compress=0)["usage"]["prompt_tokens"]
    assert AUTO_COMPRESS < 2 * told.prompt_tokens < as_text


def test_memory(able: ChatClient, served: Served) -> None:
    if isinstance(able, LiteLlm | LlamaIndex):
        pytest.skip("it sends no parts of a type that it does not know")
    parts = [{"type": "memory", "id": served.make_memory()}, {"type": "text", "text": "Where?"}]
    messages = [{"role": "user", "content": parts}]
    assert able.ask(served, messages).texts == texts(served.chat(messages))


def test_errors(client: ChatClient, served: Served) -> None:
    with pytest.raises(Exception, match="no such model"):
        client.ask(served, QUESTION, model="other")
    with pytest.raises(Exception, match="context window"):
        client.ask(served, [{"role": "user", "content": "x y z " * 3000}])
