from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from icae.errors import InputError
from icae.serve.parsers import Parsers

UNCLOSED = b"<html>" + b"<div><b><p><td>" * 60_000 + b"The end."


@pytest.fixture
def parsers() -> Iterator[Parsers]:
    made = Parsers()
    yield made
    made.shutdown()


def test_a_process_reads_one_file_after_the_other(parsers: Parsers) -> None:
    for text in (b"The inn is old.", b"<html><p>The inn is old."):
        told = parsers.text(text, max_bytes=1000, seconds=60)
        assert told.strip() == "The inn is old."
    with pytest.raises(InputError, match="too large"):
        parsers.text(b"x" * 11, max_bytes=10, seconds=60)
    with pytest.raises(InputError, match="PDF cannot be read"):
        parsers.text(b"%PDF-1.4 nothing", max_bytes=1000, seconds=60)
    assert len(parsers._all) == 1


def test_a_file_that_takes_too_long_costs_its_process_alone(parsers: Parsers) -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        parsers.text(UNCLOSED, max_bytes=10_000_000, seconds=1)
    assert time.monotonic() - begin < 5
    assert not parsers._all
    assert parsers.text(b"The inn is old.", max_bytes=1000, seconds=60) == "The inn is old."


def test_what_cannot_be_read_within_the_memory_there_is_is_refused(parsers: Parsers) -> None:
    parsers.text(b"The inn.", max_bytes=1000, seconds=60)
    (process,) = parsers._all
    timer = threading.Timer(0.3, process.kill)  # as the system does where memory runs out
    timer.start()
    with pytest.raises(InputError, match="cannot be read"):
        parsers.text(UNCLOSED, max_bytes=10_000_000, seconds=60)


def test_uploads_that_take_long_hold_up_nobody_else(serve: Any) -> None:
    server = serve(parse_seconds=2.0)
    statuses: list[int] = []

    def post(data: bytes) -> None:
        with server.client() as http:
            told = http.post("/v1/memories", files={"file": ("a.html", data)})
            statuses.append(told.status_code)

    threads = [threading.Thread(target=post, args=[UNCLOSED]) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    begin = time.monotonic()
    server.chat("Where?")
    assert time.monotonic() - begin < 2
    for thread in threads:
        thread.join()
    post(b"<!doctype html><p>The inn is near the end.")
    assert statuses == [408, 408, 201]


@pytest.mark.parametrize(
    "data",
    [
        b"<html><![if x]><p>a",
        b"<html><!DOCTYPE [<!ENTITY",
        b"<html><a" + b"<" * 5000,
        b"<html>" + b"<i>" * 3000 + b"x",
        b"<html><!--",
        b"<html>&#99999999999999;&#xD800;x",
        b"\xff\xfe<\x00h\x00",
        b"{\\rtf1" + b"{" * 3000,
        b"PK\x03\x04word/document.xml",
        b"%PDF-1.7\ntrailer<</Root 1 0 R>>",
    ],
)
def test_malformed_files_are_refused_and_never_a_mistake_of_the_server(
    shared: Any, data: bytes
) -> None:
    with shared.client() as http:
        told = http.post("/v1/memories", files={"file": ("a", data)})
    assert told.status_code in (200, 201, 202, 400, 408), told.text
