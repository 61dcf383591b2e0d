"""The journal of a triplet build: every reply that was paid for, one JSON object a line.

A reply counts once its line is on disk (fsync). A process killed while it writes leaves a
cut line at the end, which the next one takes off. Nothing is ever rewritten, so the journal of
a stopped, changed or enlarged build is reused for every request that stayed the same.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import filelock

from icae.config.parsing import from_dict
from icae.data.triplets.records import Reply
from icae.errors import ConfigError, InputError

logger = logging.getLogger(__name__)

Replies = Mapping[str, Sequence[Reply]]
"""Request id -> its replies, in the order in which they came."""

_HEADER = b'{"format": "icae-pwc-journal", "version": 1}\n'


class Journal:
    """An open journal; see `open_journal`."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        stream.seek(0)
        data = stream.read()
        self.replies, whole = _parse(data, path)
        if whole < len(data):
            logger.warning("%s: the last line was cut off by a stop and is dropped", path)
            stream.truncate(whole)
        self._stream = stream
        self._lock = threading.Lock()
        if not whole:
            self._write(_HEADER)

    def append(self, reply: Reply) -> None:
        """Write a reply; it is on disk when this returns. Threads may call it at once."""
        with self._lock:
            self._write(json.dumps(asdict(reply), ensure_ascii=True).encode("ascii") + b"\n")
            self.replies.setdefault(reply.request, []).append(reply)

    def _write(self, line: bytes) -> None:
        self._stream.write(line)
        self._stream.flush()
        os.fsync(self._stream.fileno())


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a journal, or start one; no other process can while the block runs.

    Raises:
        InputError: If the file is in use by another process, cannot be written, is no
            journal, or is damaged before its last line.
    """
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        with lock, path.open("a+b") as stream:
            yield Journal(stream, path)
    except filelock.Timeout as error:
        raise InputError(
            "The journal is in use.",
            got=f"{path}: another process writes to it",
            fix="wait for that build to end, or name another output",
        ) from error
    except OSError as error:
        raise InputError(
            "The journal cannot be written.", got=f"{path}: {error.strerror or error}"
        ) from error


def _parse(data: bytes, path: Path) -> tuple[dict[str, list[Reply]], int]:
    """Replies, and the bytes up to the end of the last whole line."""
    replies: dict[str, list[Reply]] = {}
    if len(data) < len(_HEADER) and _HEADER.startswith(data):
        return replies, 0
    header, *lines = data.splitlines(keepends=True)
    if header != _HEADER:
        raise _damaged(path, 1, "no header of a journal of this version")
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    for number, line in enumerate(lines, start=2):
        try:
            reply = from_dict(Reply, json.loads(line), where=f"line {number}")
        except (ValueError, ConfigError) as error:
            raise _damaged(path, number, " ".join(str(error).split())) from error
        replies.setdefault(reply.request, []).append(reply)
    return replies, len(header) + sum(map(len, lines))


def _damaged(path: Path, number: int, got: str) -> InputError:
    return InputError(
        "The journal cannot be used.",
        got=f"line {number} of {path}: {got}",
        expected="a journal of `icae pwc build` or `icae eval judge`",
        fix="move the file away to start over, or remove that line if you know why it is there",
    )
