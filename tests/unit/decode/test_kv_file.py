from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from icae.decode.kv_file import kv_path, load_kv, store_kv
from icae.engine import Engine
from icae.errors import InputError, MemoryFileError
from icae.memory import Memory

TEXT = "the thing in the shed is a tin and in it is a thin ring " * 2


@pytest.fixture
def memory(engine: Engine) -> Memory:
    return engine.compress(TEXT, ratio=4)


@pytest.fixture
def path(tmp_path: Path, memory: Memory) -> Path:
    memory.save(tmp_path / "notes.icae")
    return tmp_path / "notes.icae"


def test_a_cache_that_was_stored_is_taken_and_changes_no_answer(
    engine: Engine, build_engine: Any, memory: Memory, path: Path
) -> None:
    expected = engine.ask(memory, "Where is it?", max_new_tokens=6).text
    assert load_kv(engine, memory, path) == "absent"
    written = store_kv(engine, memory, path)
    other = build_engine()

    assert written == kv_path(path, engine) == path.with_name("notes.icae.torch.kv")
    assert load_kv(other, memory, path) == "loaded"
    assert other.ask(memory, "Where is it?", max_new_tokens=6).text == expected


def test_a_cache_of_something_else_is_ignored_with_a_warning(
    engine: Engine, build_engine: Any, memory: Memory, path: Path, caplog: Any
) -> None:
    store_kv(engine, memory, path)
    other_memory = engine.compress("the thing", ratio=4)
    other_adapter = build_engine(adapter_hash="b" * 64)

    with caplog.at_level(logging.WARNING, logger="icae"):
        assert load_kv(engine, other_memory, path) == "unusable"
        assert load_kv(other_adapter, memory, path) == "unusable"
    assert caplog.text.count("belongs to another memory, model or runtime") == 2


@pytest.mark.parametrize(
    "wreck",
    [
        lambda b: b[:-9],
        lambda b: b[:20],
        lambda b: b"x" * 99,
        lambda b: b[:-1] + bytes([b[-1] ^ 1]),
    ],
)
def test_a_damaged_file_is_ignored_with_a_warning_and_written_anew(
    engine: Engine, memory: Memory, path: Path, caplog: Any, wreck: Any
) -> None:
    file = store_kv(engine, memory, path)
    whole = file.read_bytes()
    file.write_bytes(wreck(whole))

    with caplog.at_level(logging.WARNING, logger="icae"):
        assert load_kv(engine, memory, path) == "unusable"
    assert str(file) in caplog.text
    store_kv(engine, memory, path)
    assert load_kv(engine, memory, path) == "loaded"


def test_bytes_that_the_runtime_refuses_are_unusable(
    engine: Engine, memory: Memory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_kv(engine, memory, path)

    def refuse(*_: Any) -> None:
        raise InputError("A key-value cache does not fit the decoder.")

    monkeypatch.setattr(engine, "load_kv", refuse)
    assert load_kv(engine, memory, path) == "unusable"


def test_a_write_that_fails_leaves_the_old_file(
    engine: Engine, memory: Memory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store_kv(engine, memory, path)
    before = file.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(MemoryFileError, match="cannot be written"):
        store_kv(engine, engine.compress("the thing", ratio=4), path)
    assert file.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["notes.icae", "notes.icae.torch.kv"]


def test_a_memory_that_leaves_no_room_for_a_question_is_not_read(
    engine: Engine, path: Path
) -> None:
    long = engine.compress(TEXT * 8, ratio=1, verify=False)
    assert long.positions > 256

    with pytest.raises(InputError, match="context window"):
        store_kv(engine, long, path)
