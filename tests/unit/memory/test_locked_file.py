"""Memory files that several processes change.

With 8 processes that edit 50 times each (minutes):
``ICAE_FILE_EDITS=8x50 python -m pytest tests/unit/memory/test_locked_file.py -s``
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import file_worker
from icae.errors import MemoryFileError
from icae.memory import Memory, locked
from word_memories import word_memory


def edited(path: Path, *, workers: int, rounds: int) -> list[str]:
    """Edit a file with several processes at once; reads it all the while."""
    word_memory("the first words", name="first").save(path)
    started = [
        subprocess.Popen(
            [sys.executable, file_worker.__file__, path, f"w{worker}", str(rounds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for worker in range(workers)
    ]
    while any(process.poll() is None for process in started):
        Memory.load(path)  # a whole file at any moment
        time.sleep(0.02)
    assert [process.returncode for process in started] == [0] * workers
    return [line for process in started for line in process.stdout.read().split()]


def test_every_edit_of_processes_that_run_at_once_is_in_the_file_or_refused(tmp_path):
    workers, rounds = (int(n) for n in os.environ.get("ICAE_FILE_EDITS", "3x5").split("x"))
    told = edited(tmp_path / "notes.icae", workers=workers, rounds=rounds)
    assert len(told) == workers * rounds
    print(f"{len(told)} edits, {told.count('refused')} of them refused")
    documents = [document.name for document in Memory.load(tmp_path / "notes.icae").documents]
    assert sorted(documents) == sorted(["first", *(name for name in told if name != "refused")])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.icae"]


def test_file_that_another_program_changed_is_not_written_over(tmp_path):
    path = tmp_path / "notes.icae"
    word_memory("one two").save(path)
    with locked(path) as file:
        file.save(file.load())  # its own changes are none
        word_memory("somebody else").save(path)
        with pytest.raises(MemoryFileError, match="changed by another program"):
            file.save(word_memory("late"))
    assert Memory.load(path).documents[0].source == "somebody else"


def test_file_that_appeared_in_the_meantime_is_not_written_over(tmp_path):
    with locked(tmp_path / "new.icae") as file:
        word_memory("faster").save(file.path)
        with pytest.raises(MemoryFileError, match="changed by another program"):
            file.save(word_memory("slower"))


def test_held_lock_is_an_error_that_says_so(tmp_path):
    with (
        locked(tmp_path / "notes.icae"),
        pytest.raises(MemoryFileError, match="is being changed by another process"),
        locked(tmp_path / "notes.icae", timeout_s=0.01),
    ):
        pass
    with (
        pytest.raises(MemoryFileError, match="cannot be locked"),
        locked(tmp_path / "missing" / "notes.icae"),
    ):
        pass
