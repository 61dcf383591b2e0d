"""A server whose memories are keys and values, or slots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from icae.engine import Engine
from icae.memory import memory_bytes, memory_from_bytes
from icae.serve.keys import LOCAL_OWNER

FILE = {"Content-Type": "application/octet-stream"}


KEY_VALUES = {
    "memory": "key-values",
    "framing": "between",
    "objective_tokens": 2,
    "lora_targets": "all-linear",
}


@pytest.fixture
def engine(build_engine: Any, request: pytest.FixtureRequest) -> Engine:
    return build_engine(**getattr(request, "param", KEY_VALUES))


@pytest.mark.parametrize("engine", [{**KEY_VALUES, "previous_spans": 1}], indirect=True)
def test_spans_that_see_those_before_them_are_made_as_python_makes_them(
    engine: Engine, serve: Any
) -> None:
    long = "The fox is in the inn. " * 9
    server = serve()
    made = server.service.library.load(LOCAL_OWNER, server.make_memory(long)["id"])
    expected = engine.compress(long, name="fox")
    assert len(made.spans) > 4
    for own, other in zip(made.spans, expected.spans, strict=True):
        np.testing.assert_array_equal(own.payload.numbers, other.payload.numbers)


@pytest.mark.parametrize(
    ("engine", "kind"), [({}, "slots"), (KEY_VALUES, "key-values")], indirect=["engine"]
)
def test_memories_are_made_longer_asked_and_taken_out_and_in(
    engine: Engine, kind: str, serve: Any, text: str
) -> None:
    server = serve()
    made = server.make_memory()
    with server.client() as http:
        url = f"/v1/memories/{made['id']}"
        longer = http.post(f"{url}/append", json={"text": "It ran."}).json()
        data = http.get(f"{url}/file").content
        taken = http.post("/v1/memories/import?name=new", content=data, headers=FILE).json()
        spans = http.get(f"{url}/spans").json()["spans"]
    memory = memory_from_bytes(data, where="the response")
    expected = engine.append(engine.compress(text, name="fox"), "It ran.")

    assert {span.kind for span in memory.spans} == {kind}
    assert memory.documents[0].source == expected.documents[0].source
    assert memory.tokens == longer["tokens"] == expected.tokens
    assert {one["kind"] for one in spans} == {"slots"}
    assert longer["positions"] == taken["positions"] == memory.positions
    assert (taken["name"], taken["id"] != made["id"]) == ("new", True)
    answer = engine.ask(memory, "Where?", max_new_tokens=6).text
    assert [server.ask(one["id"]) for one in (made, taken, made)] == [answer] * 3


def test_a_minimal_fidelity_and_a_long_message_are_held(serve: Any) -> None:
    server = serve(longest_message=40)
    assert server.make_memory(min_fidelity=0.9)["fidelity"] >= 0.9
    said = server.chat("The fox is in the inn. " * 12 + "\n\nWhere?")
    assert said.usage.prompt_tokens < 150


def test_a_memory_of_the_other_form_is_refused_with_both(serve: Any, build_engine: Any) -> None:
    server = serve()
    data = memory_bytes(build_engine().compress("The fox is in the inn."))
    with server.client() as http:
        told = http.post("/v1/memories/import", content=data, headers=FILE)

    assert told.status_code == 409
    message = told.json()["error"]["message"]
    assert "form" in message
    assert "key-values" in message
    assert "icae upgrade" in message


def test_chats_about_one_memory_share_it_and_a_longer_one_is_read_anew(serve: Any) -> None:
    server = serve()
    library, made = server.service.library, server.make_memory()
    first, again = (library.load(LOCAL_OWNER, made["id"]) for _ in range(2))
    with server.client() as http:
        http.post(f"/v1/memories/{made['id']}/append", json={"text": "It ran."})

    assert first is again
    assert library.load(LOCAL_OWNER, made["id"]).tokens > first.tokens
