from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from icae.errors import MemoryFileError
from icae.memory import memory_bytes, memory_from_bytes
from icae.serve import library
from icae.serve.jobs import changing

FILE = {"Content-Type": "application/octet-stream"}
LATER = {"Prefer": "wait=3, Respond-Async"}
LONG = {"text": "The inn is near the end. " * 400}


def spans_of(http: Any, made: Any) -> Any:
    return http.get(f"/v1/memories/{made['id']}/spans").json()


def test_memories_are_listed_the_last_made_first_shown_and_deleted(serve: Any) -> None:
    server = serve()
    made = [server.make_memory(f"The fox is in inn {i}.") for i in range(4)]
    first, ids = made[0], [one["id"] for one in made]

    with server.client() as http:
        listed = http.get("/v1/memories").json()
        assert [one["id"] for one in listed["data"]] == ids[::-1]
        assert not listed["has_more"]
        page = http.get("/v1/memories", params={"limit": 3}).json()
        assert (page["has_more"], page["last_id"]) == (True, ids[1])
        rest = http.get("/v1/memories", params={"limit": 3, "after": page["last_id"]}).json()
        assert (rest["has_more"], rest["data"]) == (False, [first])
        unknown = http.get("/v1/memories", params={"after": "mem_" + "0" * 24})
        assert unknown.status_code == 404
        url = f"/v1/memories/{first['id']}"
        assert http.get(url).json() == first
        deleted = http.delete(url)
        assert deleted.json() == {"id": first["id"], "object": "memory.deleted", "deleted": True}
        assert http.get(url).status_code == http.delete(url).status_code == 404


def test_a_long_document_is_a_job_whose_progress_shows(serve: Any) -> None:
    server = serve(wait_seconds=0.01)
    with server.client() as http:
        made = http.post("/v1/memories", json=LONG)
        assert made.status_code == 202
        memory_id, seen = made.json()["id"], []
        assert made.json()["status"] == "in_progress"
        asked = {"model": "tiny", "messages": server.about(memory_id)}
        early = http.post("/v1/chat/completions", json=asked)
        longer = http.post(f"/v1/memories/{memory_id}/append", json={"text": "more"})
        while (body := http.get(f"/v1/memories/{memory_id}").json())["status"] != "ready":
            seen.append(body["progress"])
            time.sleep(0.01)
    assert (longer.status_code, longer.json()["error"]["code"]) == (409, "memory_in_progress")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "memory_not_ready")
    assert "Retry-After" in early.headers
    assert any(0 < one["spans_done"] < one["spans"] for one in seen)
    assert body["tokens"] > 1000


def test_a_memory_that_is_just_being_shelved_is_ready_and_not_in_progress(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    library, shelved = running.service.library, threading.Event()
    put = library._put

    def slow_put(*args: Any, **settings: Any) -> Any:
        made = put(*args, **settings)
        shelved.set()
        time.sleep(0.2)
        return made

    monkeypatch.setattr(library, "_put", slow_put)
    with running.client() as http:
        made = http.post("/v1/memories", json={"text": "The inn."}, headers=LATER).json()
        assert shelved.wait(timeout=30)
        assert http.get(f"/v1/memories/{made['id']}").json()["status"] == "ready"
        appended = http.post(f"/v1/memories/{made['id']}/append", json={"text": " It wakes."})
        assert appended.status_code in (200, 202), appended.text


def test_a_memory_that_is_deleted_while_it_is_made_never_appears(serve: Any) -> None:
    server = serve(wait_seconds=0.01)
    with server.client() as http:
        made = http.post("/v1/memories", json=LONG).json()
        assert http.delete(f"/v1/memories/{made['id']}").status_code == 200
        server.make_memory()  # by then the other work was taken up and given up
        assert http.get(f"/v1/memories/{made['id']}").status_code == 404
        assert made["id"] not in http.get("/v1/memories").text


@pytest.fixture
def overtaken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Functions, each called once by a change between its reading and its writing."""
    meanwhile: list[Any] = []

    def overtaken(*args: Any) -> Any:
        changed = yield from changing(*args)
        if meanwhile:
            meanwhile.pop()()
        return changed

    monkeypatch.setattr("icae.serve.library.changing", overtaken)
    return meanwhile


def test_an_append_that_another_server_overtook_is_done_again_and_nothing_is_lost(
    serve: Any, overtaken: list[Any]
) -> None:
    first, second = serve(), serve()
    url = f"/v1/memories/{first.make_memory('The fox.')['id']}"
    with first.client() as http, second.client() as other:
        overtaken.append(lambda: other.post(f"{url}/append", json={"text": " The hen."}))
        made = http.post(f"{url}/append", json={"text": " The cat."})
        assert made.status_code == 200, made.text
        assert other.get(url).headers["etag"] == made.headers["etag"]
        (document,) = other.get(f"{url}/spans").json()["documents"]
    assert document["text"] == "The fox. The hen. The cat."


def test_a_change_of_another_version_is_refused_and_changes_nothing(
    serve: Any, overtaken: list[Any]
) -> None:
    with serve().client() as http, serve().client() as other:
        made = http.post("/v1/memories", json={"text": "The fox."})
        url, old = f"/v1/memories/{made.json()['id']}", made.headers["etag"]
        assert old == f'"{made.json()["version"]}"'

        def change(if_match: str, method: str = "POST") -> Any:
            where, body = (url, None) if method == "DELETE" else (f"{url}/append", {"text": " A."})
            return http.request(method, where, json=body, headers={"If-Match": if_match})

        now = change(f'"other", {old}').headers["etag"]
        assert now not in (old, None)
        for wrong in (old, f"W/{now}", '"other"'):
            for method in ("POST", "DELETE"):
                refused = change(wrong, method)
                assert refused.status_code == 412, refused.text
                assert refused.json()["error"]["code"] == "precondition_failed"
        overtaken.append(lambda: other.post(f"{url}/append", json={"text": " B."}))
        assert change(now).status_code == 412
        assert http.get(f"{url}/spans").json()["documents"][0]["text"] == "The fox. A. B."
        assert change("*").status_code == 200
        assert change(http.get(url).headers["etag"], "DELETE").status_code == 200
        assert http.get(url).status_code == 404


def test_text_within_a_memory_is_replaced_in_the_version_that_was_seen(serve: Any) -> None:
    with serve().client() as http:
        made = http.post("/v1/memories", json={"text": "\N{FOX FACE} The fox. The hen."})
        url, old = f"/v1/memories/{made.json()['id']}", made.headers["etag"]

        def edit(start: int, end: int, text: str, **headers: str) -> Any:
            body = {"start": start, "end": end, "text": text}
            return http.post(f"{url}/edit", json=body, headers=headers)

        assert edit(6, 9, "cat").status_code == 200
        assert edit(10, 19, "").status_code == 200
        assert spans_of(http, made.json())["documents"][0]["text"] == "\N{FOX FACE} The cat."
        for wrong in (old, "W/" + http.get(url).headers["etag"]):
            assert edit(0, 1, "A", **{"If-Match": wrong}).status_code == 412
        outside = edit(0, 99, "A")
        assert (outside.status_code, outside.json()["error"]["code"]) == (400, "invalid_request")
        assert edit(0, 10, "").status_code == 400
        assert edit(0, 1, "A" * 20_001).status_code == 413
        assert spans_of(http, made.json())["documents"][0]["text"] == "\N{FOX FACE} The cat."
        edit(0, 0, "So: ")
        assert spans_of(http, made.json())["documents"][0]["text"] == "So: \N{FOX FACE} The cat."


def test_an_edit_that_another_server_overtook_changes_nothing(
    serve: Any, overtaken: list[Any]
) -> None:
    first, second = serve(), serve()
    url = f"/v1/memories/{first.make_memory('The fox.')['id']}"
    with first.client() as http, second.client() as other:
        overtaken.append(lambda: other.post(f"{url}/append", json={"text": " The hen."}))
        lost = http.post(f"{url}/edit", json={"start": 4, "end": 7, "text": "cat"})
        assert (lost.status_code, lost.json()["error"]["code"]) == (412, "precondition_failed")
        assert other.get(f"{url}/spans").json()["documents"][0]["text"] == "The fox. The hen."


def test_a_memory_that_must_hold_more_than_slots_do_stays_verbatim(shared: Any, http: Any) -> None:
    made = shared.make_memory(min_fidelity=0.99)
    assert made["fidelity"] == 1.0
    assert {span["kind"] for span in spans_of(http, made)["spans"]} == {"verbatim"}
    assert made["positions"] == made["tokens"]


def test_the_spans_of_a_memory_tile_its_text_with_measured_fidelity(
    shared: Any, http: Any, engine: Any
) -> None:
    text = "The inn is from 1861 and it is old."
    body = http.get(f"/v1/memories/{shared.make_memory(text)['id']}/spans").json()
    memory = engine.compress(text, name="fox")
    assert body["documents"][0]["text"] == text
    assert [span["fidelity"] for span in body["spans"]] == [s.fidelity for s in memory.spans]
    stretches = [one for span in body["spans"] for one in span["stretches"]]
    assert "".join(text[one["start"] : one["end"]] for one in stretches) == text
    assert all(0 <= one["confidence"] <= 1 for one in stretches)
    critical = "".join(text[one["start"] : one["end"]] for one in stretches if one["critical"])
    assert critical.strip() == "1861"


def test_a_damaged_memory_file_is_refused_and_nothing_is_kept(
    serve: Any, engine: Any, text: str
) -> None:
    whole = memory_bytes(engine.compress(text))
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    huge = (2**40).to_bytes(8, "little") + whole[8:]
    pickled = b"\x80\x04\x95" + b"cos\nsystem\n" * 9
    with serve().client() as http:
        for data in (b"", b"{}", whole[:-9], bytes(flipped), huge, pickled, whole + b"x"):
            refused = http.post("/v1/memories/import", content=data, headers=FILE)
            assert refused.status_code == 400, refused.text
            assert refused.json()["error"]["code"] == "invalid_memory_file"
        assert http.get("/v1/memories").json()["data"] == []


def test_a_small_file_with_very_much_text_is_refused_before_it_is_unpacked(
    serve: Any, engine: Any
) -> None:
    data = memory_bytes(engine.verbatim("a" * 30_000))
    server = serve(body_bytes=len(data) - 1)
    with server.client() as http:
        assert http.post("/v1/memories/import", content=data, headers=FILE).status_code == 413
    with pytest.raises(MemoryFileError, match="too much text"):
        memory_from_bytes(data, where="The upload", max_source_bytes=29_999)


def test_a_memory_of_another_adapter_is_refused_when_it_comes_and_when_it_is_asked(
    serve: Any, build_engine: Any, text: str
) -> None:
    foreign = build_engine(adapter_hash="b" * 64).compress(text)
    server = serve()
    memory_id = "mem_" + "0" * 24
    with server.service.library._shelf.writing() as store:
        library._keep(store, "local", memory_id, "old", foreign)
    with server.client() as http:
        uploaded = http.post("/v1/memories/import", content=memory_bytes(foreign), headers=FILE)
        body = {"model": "tiny", "messages": server.about(memory_id)}
        asked = http.post("/v1/chat/completions", json=body)
    for refused in (uploaded, asked):
        assert refused.status_code == 409, refused.text
        assert refused.json()["error"]["code"] == "incompatible_memory"


def test_memories_are_there_after_a_restart(serve: Any) -> None:
    first = serve()
    made = first.make_memory()
    answer = first.ask(made["id"])
    first.server.should_exit = True
    first.thread.join(timeout=20)
    assert serve().ask(made["id"]) == answer
