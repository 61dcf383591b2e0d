from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from icae.errors import MemoryFileError
from icae.memory import (
    Embeddings,
    Memory,
    Verbatim,
    memory_bytes,
    memory_from_bytes,
    memory_size,
    read_header,
)
from icae.memory.memory import MemoryContent
from word_memories import with_spans

Convert = Callable[[Memory], Memory]
Read = Callable[[Path], object]


def again(memory: Memory, path: Path) -> Memory:
    memory.save(path)
    return Memory.load(path)


def test_every_memory_comes_back_as_it_was(memory, mixed, build, path):
    bare = memory.without_source()
    some_source = replace(memory, documents=(bare.documents[0], memory.documents[1]))
    odd = with_spans(memory, [replace(s, fidelity=None, ratio=10 / 3) for s in memory.spans])
    unmeasured = with_spans(
        mixed,
        [s if s.kind == "tokens" else replace(s, token_fidelity=None) for s in mixed.spans],
    )
    ids = np.full(2, 2**32 - 1, dtype=np.int64)
    largest = with_spans(
        mixed,
        [replace(s, payload=Verbatim(ids=ids)) if i == 1 else s for i, s in enumerate(mixed.spans)],
    )
    no_slots = build("abc", "t3")
    for one in (memory, mixed, bare, some_source, odd, unmeasured, largest, no_slots):
        loaded = again(one, path)
        assert loaded == one
        assert memory_size(one) == path.stat().st_size
        assert (loaded.slots.dtype, loaded.verbatim_ids.dtype) == (np.float32, np.int64)
    assert again(memory, path).spans[0].slots_KD.flags.writeable


def test_bfloat16_memory_comes_back_rounded_and_then_round_trips_exactly(mixed, as_bfloat16, path):
    loaded = again(as_bfloat16(mixed), path)
    assert loaded.slots.dtype == np.float32
    assert not np.array_equal(loaded.slots, mixed.slots)
    assert np.abs(loaded.slots / mixed.slots - 1).max() <= 2**-8
    assert loaded.token_fidelity == mixed.token_fidelity
    assert again(loaded, path) == loaded


def test_safetensors_library_reads_tensors_that_are_aligned_to_their_items(
    mixed, as_bfloat16, taken_apart
):
    memory = as_bfloat16(mixed)
    assert memory.slot_count % 2 == 1
    tensors = dict(safetensors.deserialize(memory_bytes(memory)))
    assert {name: (t["dtype"], t["shape"]) for name, t in tensors.items()} == {
        "verbatim_ids": ("U32", [5]),
        "slots": ("BF16", [7, 3]),
        "reproduced": ("U8", [2]),
        "confidence": ("U8", [16]),
        "source_zstd": ("U8", [len(tensors["source_zstd"]["data"])]),
    }
    assert bytes(tensors["verbatim_ids"]["data"])[::4] == b"deKOP"
    entries = taken_apart(memory).entries
    assert list(entries) == sorted(entries)  # JSON sorts them; their offsets tell the order
    starts = {name: entry["data_offsets"][0] for name, entry in entries.items()}
    order = ["verbatim_ids", "slots", "reproduced", "confidence", "source_zstd"]
    assert sorted(starts, key=lambda name: starts[name]) == order
    assert starts["verbatim_ids"] % 4 == starts["slots"] % 2 == 0


def test_same_memory_gives_the_same_bytes_in_every_process_and_order_of_slots(memory, tmp_path):
    spans = [
        replace(span, payload=Embeddings(slots_KD=np.asfortranarray(span.slots_KD)))
        for span in memory.spans
    ]
    memory.save(tmp_path / "a")
    with_spans(memory, spans).save(tmp_path / "b")
    code = "import sys; from icae import Memory; Memory.load(sys.argv[1]).save(sys.argv[2])"
    _python("-c", code, str(tmp_path / "a"), str(tmp_path / "c"))
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def test_file_is_readable_without_torch_and_transformers(memory, path):
    memory.save(path)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from icae.memory import Memory, read_header\n"
        "Memory.load(sys.argv[1]).save(sys.argv[1])\n"
        "assert read_header(sys.argv[1]).slot_count == 5\n"
        "loaded = {name.split('.')[0] for name in sys.modules if sys.modules[name]}\n"
        "print(loaded & {'torch', 'transformers', 'peft', 'accelerate'})"
    )
    assert _python("-c", code, str(path)) == "set()\n"


def _python(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ).stdout


def said_of(memory: MemoryContent) -> list[Any]:
    """All that a header says."""
    said: list[Any] = [(d.name, d.sha256, d.chars, d.token_ids_sha256) for d in memory.documents]
    for s in memory.spans:
        said.append((s.token_start, s.token_end, s.char_start, s.char_end, s.kind, s.positions))
        said.append((s.ratio, s.fidelity, s.refine_steps, s.refine_seconds, s.written_back))
    counts = (memory.tokens, memory.slot_count, memory.verbatim_tokens, memory.positions)
    return [*said, *counts, memory.ratio, memory.fidelity, memory.provenance, memory.created_by]


def test_header_says_everything_but_payloads_and_text(memory, mixed, path):
    for one in (memory, mixed, memory.without_source()):
        one.save(path)
        header = read_header(path)
        assert said_of(header) == said_of(one)
        assert (header.file_bytes, header.format_version) == (path.stat().st_size, 4)
        assert header.has_source == (one.documents[0].source is not None)
        assert header.has_token_fidelity == (one is mixed)


def test_header_is_read_without_reading_slots(memory, path, monkeypatch):
    def fail(*_: object, **__: object) -> bytes:
        raise AssertionError("a tensor was read")

    memory.save(path)
    monkeypatch.setattr("icae.memory.file.mmap.mmap", fail)
    assert read_header(path).slot_count == 5
    with pytest.raises(AssertionError):
        Memory.load(path)


both_readers = pytest.mark.parametrize("read", [Memory.load, read_header])


@both_readers
def test_path_of_no_file_has_its_own_message(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"")
    for path, message in (
        (tmp_path / "none.icae", "There is no memory file"),
        (tmp_path, "folder"),
        (tmp_path / "pipe", "pipe"),
        (tmp_path / "file" / "m.icae", "cannot be read"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(MemoryFileError, match=message) as caught:
            read(path)
        assert caught.value.fix is not None


@both_readers
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"x", "is not a memory file"),
        (b"Just some notes, not a memory.\n", "is not a memory file"),
        (b"GGUF\x03\x00\x00\x00{}", "is not a memory file"),
        (b"\x02" + bytes(7) + b"[]", "is not a memory file"),
    ],
)
def test_file_of_another_kind_is_named(read, path, content, message):
    path.write_bytes(content)
    with pytest.raises(MemoryFileError, match=message) as caught:
        read(path)
    assert str(path) in caught.value.message
    assert caught.value.fix is not None


@both_readers
def test_truncated_or_longer_file_is_refused(read, memory, path):
    content = memory_bytes(memory)
    last = len(content) - 1
    for size in (*range(20), *range(20, last, 9), last):
        path.write_bytes(content[:size])
        with pytest.raises(MemoryFileError, match=r"truncated|empty|not a memory file") as got:
            read(path)
        assert size < 9 or "truncated" in str(got.value)
    path.write_bytes(content + b"\0")
    with pytest.raises(MemoryFileError, match="1 bytes follow"):
        read(path)


@pytest.mark.parametrize("offset", range(8))
def test_any_flipped_byte_is_refused(build, path, offset):
    content = bytearray(memory_bytes(build("abcde", "s3 t2")))
    for position in range(offset, len(content), 8):
        mask = 0xFF if position % 3 == 0 else 1 << position % 8
        content[position] ^= mask
        path.write_bytes(content)
        with pytest.raises(MemoryFileError):
            Memory.load(path)
        content[position] ^= mask


@pytest.mark.parametrize("call", ["replace", "fsync", "open"])
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"(?s)No space left.*fix: +Free some"),
        (errno.EACCES, r"(?s)Permission denied.*Choose a folder"),
    ],
)
def test_failed_save_keeps_the_previous_file_and_leaves_no_other(
    memory, path, monkeypatch, call, number, message
):
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    memory.save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(MemoryFileError, match=message):
            (memory + memory).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_save_where_no_file_can_be_says_so(memory, tmp_path):
    with pytest.raises(MemoryFileError, match=r"Create the folder .*missing"):
        memory.save(tmp_path / "missing" / "m.icae")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(MemoryFileError, match="folder or device"):
            memory.save(tmp_path / name)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "folder", tmp_path / "pipe"]


def test_slots_too_large_for_bfloat16_are_refused(memory, as_bfloat16, path):
    slots = memory.spans[0].slots_KD.copy()
    slots[0, 0] = np.finfo(np.float32).max
    first = replace(memory.spans[0], payload=Embeddings(slots_KD=slots))
    with pytest.raises(MemoryFileError, match="float32"):
        as_bfloat16(with_spans(memory, (first, *memory.spans[1:]))).save(path)
    assert not path.exists()


def test_bytes_are_those_of_the_file_and_hold_a_bounded_text(memory, path):
    memory.save(path)
    data = memory_bytes(memory)
    assert data == path.read_bytes()
    assert memory_from_bytes(data, where="upload") == memory
    with pytest.raises(MemoryFileError, match="upload holds too much text"):
        memory_from_bytes(data, where="upload", max_source_bytes=20)
