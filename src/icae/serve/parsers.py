"""Reading uploaded files in processes of their own, which are killed when they take too long.

A file may be made so that reading it takes hours or all memory. The process that reads it is
started once and used again; run as a module this is that process.
"""

from __future__ import annotations

import json
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from icae.errors import InputError

AT_A_TIME = 2
"""Files that are read at a time."""

START_S = 60.0
"""How long a process may take to start, s."""

READY = b"ready\n"
"""What it says then."""

MOST_MEMORY = 1_500_000_000
"""Most address space of a process that reads files, bytes."""


class Parsers:
    """Reads files as documents, a few at a time; for threads of its own (`pool`)."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="icae-parser")
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def text(self, data: bytes, *, max_bytes: int, seconds: float) -> str:
        """The text of a file.

        Raises:
            InputError: If it is no document, or cannot be read within the memory there is.
            TimeoutError: If it took longer than `seconds`.
        """
        process = self._process()
        timer, end = _killed_after(process, seconds), time.monotonic() + seconds
        try:
            answer = _asked(process, data, max_bytes)
        finally:
            timer.cancel()
        if answer is None:
            process.kill()
            process.wait()
            self._all.discard(process)
            if time.monotonic() >= end:
                raise TimeoutError
            raise _unreadable("reading it failed")
        self._idle.put(process)
        if "text" in answer:
            return str(answer["text"])
        raise InputError(
            str(answer["message"]),
            got=answer["got"],
            expected=answer["expected"],
            fix=answer["fix"],
        )

    def shutdown(self) -> None:
        """End the processes, whatever they do."""
        self._closed = True
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._all):
            process.kill()
            process.wait()

    def _process(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise _unreadable("the server is shutting down")
        try:
            while (process := self._idle.get_nowait()).poll() is not None:
                self._all.discard(process)
        except queue.Empty:
            command = [sys.executable, "-m", "icae.serve.parsers"]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
            self._all.add(process)
            self._wait_for_start(process)
        return process

    def _wait_for_start(self, process: subprocess.Popen[bytes]) -> None:
        """Until it has loaded what it reads with: that is no time of the file."""
        timer = _killed_after(process, START_S)
        assert process.stdout is not None
        started = process.stdout.readline() == READY
        timer.cancel()
        if not started:
            self._all.discard(process)
            process.kill()
            process.wait()
            raise _unreadable("the process that reads files did not start")


def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> threading.Timer:
    """A timer that runs, and kills a process at its end."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    return timer


def _asked(
    process: subprocess.Popen[bytes], data: bytes, max_bytes: int
) -> dict[str, str | None] | None:
    """What the process says about a file; None if it ended instead."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{len(data)} {max_bytes}\n".encode() + data)
        process.stdin.flush()
        said = process.stdout.readline()
    except OSError:
        return None
    if not said.endswith(b"\n"):
        return None
    answer: dict[str, str | None] = json.loads(said)
    return answer


def _unreadable(got: str) -> InputError:
    return InputError(
        "The document cannot be read.",
        got=got,
        expected="an undamaged file of a usual size",
        fix="Send its text.",
    )


def _serve(source: BinaryIO, sink: BinaryIO, read: Callable[[bytes, int], str]) -> None:
    """Answer with a line of JSON for each file until there is none."""
    while head := source.readline():
        length, max_bytes = map(int, head.split())
        data = source.read(length)
        try:
            answer: dict[str, str | None] = {"text": read(data, max_bytes)}
        except Exception as error:  # damage shows in many ways
            told = error if isinstance(error, InputError) else _unreadable(type(error).__name__)
            answer = {name: getattr(told, name) for name in ("message", "got", "expected", "fix")}
        sink.write(json.dumps(answer).encode() + b"\n")
        sink.flush()


def _main() -> None:
    from icae.data.documents import document_of_bytes

    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    _serve(
        sys.stdin.buffer,
        sys.stdout.buffer,
        lambda data, most: document_of_bytes(data, name="the upload", max_bytes=most).text,
    )


if __name__ == "__main__":
    _main()
