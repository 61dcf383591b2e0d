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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icae.errors import MemoryFileError
from icae.memory import Embeddings, Memory, Verbatim, memory_bytes, memory_from_bytes, read_header
from icae.memory.content import MemoryContent
from word_memories import with_spans

Convert = Callable[[Memory], Memory]


def test_float32_memory_round_trips(memory: Memory, tmp_path: Path) -> None:
    memory.save(tmp_path / "m.icae")
    loaded = Memory.load(tmp_path / "m.icae")
    assert loaded == memory
    assert loaded.slots.tobytes() == memory.slots.tobytes()
    assert loaded.slots.dtype == np.float32
    assert loaded.spans[0].slots_KD.flags.writeable


def test_bfloat16_memory_comes_back_rounded_and_then_round_trips_exactly(
    memory: Memory, as_bfloat16: Convert, tmp_path: Path
) -> None:
    as_bfloat16(memory).save(tmp_path / "m.icae")
    loaded = Memory.load(tmp_path / "m.icae")
    assert loaded.slots.dtype == np.float32
    assert not np.array_equal(loaded.slots, memory.slots)
    assert np.abs(loaded.slots / memory.slots - 1).max() <= 2**-8
    loaded.save(tmp_path / "again.icae")
    assert Memory.load(tmp_path / "again.icae") == loaded


def test_memory_of_slots_and_tokens_round_trips(
    mixed: Memory, as_bfloat16: Convert, tmp_path: Path
) -> None:
    mixed.save(tmp_path / "m.icae")
    loaded = Memory.load(tmp_path / "m.icae")
    assert loaded == mixed
    assert loaded.verbatim_ids.dtype == np.int64
    assert loaded.token_fidelity is not None
    assert loaded.token_fidelity.confidence.flags.writeable
    as_bfloat16(mixed).save(tmp_path / "b.icae")
    assert Memory.load(tmp_path / "b.icae").token_fidelity == mixed.token_fidelity


def test_memory_without_slots_or_without_measured_tokens_round_trips(
    mixed: Memory, build: Callable[..., Memory], tmp_path: Path
) -> None:
    unmeasured = [
        span if span.kind == "tokens" else replace(span, token_fidelity=None)
        for span in mixed.spans
    ]
    for memory in (build("abc", "t3"), with_spans(mixed, unmeasured)):
        memory.save(tmp_path / "m.icae")
        assert Memory.load(tmp_path / "m.icae") == memory


def test_largest_token_id_round_trips(mixed: Memory, tmp_path: Path) -> None:
    ids = np.full(2, 2**32 - 1, dtype=np.int64)
    first, second, *rest = mixed.spans
    largest = replace(second, payload=Verbatim(ids=ids))
    with_spans(mixed, (first, largest, *rest)).save(tmp_path / "m.icae")
    assert Memory.load(tmp_path / "m.icae").spans[1].verbatim_ids.tolist() == ids.tolist()


def test_every_tensor_is_aligned_to_its_items(
    mixed: Memory, as_bfloat16: Convert, taken_apart: Callable[..., Any]
) -> None:
    memory = as_bfloat16(mixed)
    assert memory.slot_count % 2 == 1
    entries = taken_apart(memory).entries
    assert list(entries) == sorted(entries)  # JSON sorts them; their offsets tell the order
    starts = {name: entry["data_offsets"][0] for name, entry in entries.items()}
    assert sorted(starts, key=lambda name: starts[name]) == [
        "verbatim_ids",
        "slots",
        "reproduced",
        "confidence",
        "source_zstd",
    ]
    assert starts["verbatim_ids"] % 4 == starts["slots"] % 2 == 0


def test_memory_without_source_or_with_some_round_trips(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "m.icae"
    bare = memory.without_source()
    for kept in (bare, replace(memory, documents=(bare.documents[0], memory.documents[1]))):
        kept.save(path)
        assert Memory.load(path) == kept


def test_unmeasured_fidelity_and_odd_ratio_round_trip(memory: Memory, tmp_path: Path) -> None:
    spans = tuple(replace(span, fidelity=None, ratio=10 / 3) for span in memory.spans)
    with_spans(memory, spans).save(tmp_path / "m.icae")
    assert Memory.load(tmp_path / "m.icae").spans == spans


def test_slots_in_any_memory_order_give_the_same_bytes(memory: Memory, tmp_path: Path) -> None:
    memory.save(tmp_path / "a")
    spans = [
        replace(span, payload=Embeddings(slots_KD=np.asfortranarray(span.slots_KD)))
        for span in memory.spans
    ]
    with_spans(memory, spans).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_same_memory_gives_the_same_bytes_in_every_process(memory: Memory, tmp_path: Path) -> None:
    memory.save(tmp_path / "a")
    memory.save(tmp_path / "b")
    code = "import sys; from icae import Memory; Memory.load(sys.argv[1]).save(sys.argv[2])"
    _python("-c", code, str(tmp_path / "a"), str(tmp_path / "c"))
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def test_safetensors_library_reads_the_slots(
    memory: Memory, as_bfloat16: Convert, tmp_path: Path
) -> None:
    as_bfloat16(memory).save(tmp_path / "m.icae")
    tensors = dict(safetensors.deserialize((tmp_path / "m.icae").read_bytes()))
    assert (tensors["slots"]["dtype"], tensors["slots"]["shape"]) == ("BF16", [5, 3])
    assert tensors["source_zstd"]["dtype"] == "U8"


def test_safetensors_library_reads_tokens_and_their_fidelity(mixed: Memory, tmp_path: Path) -> None:
    mixed.save(tmp_path / "m.icae")
    tensors = dict(safetensors.deserialize((tmp_path / "m.icae").read_bytes()))
    assert (tensors["verbatim_ids"]["dtype"], tensors["verbatim_ids"]["shape"]) == ("U32", [5])
    assert bytes(tensors["verbatim_ids"]["data"])[::4] == b"deKOP"
    assert (tensors["confidence"]["shape"], tensors["reproduced"]["shape"]) == ([16], [2])


def test_file_is_readable_without_torch_and_transformers(memory: Memory, tmp_path: Path) -> None:
    memory.save(tmp_path / "m.icae")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from icae.memory import Memory, read_header\n"
        "Memory.load(sys.argv[1]).save(sys.argv[1])\n"
        "assert read_header(sys.argv[1]).slot_count == 5\n"
        "loaded = {name.split('.')[0] for name in sys.modules if sys.modules[name]}\n"
        "print(loaded & {'torch', 'transformers', 'peft', 'accelerate'})"
    )
    assert _python("-c", code, str(tmp_path / "m.icae")) == "set()\n"


def _python(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ).stdout


def said_of(memory: MemoryContent) -> list[Any]:
    """All that a header says of documents and spans."""
    said: list[Any] = [(d.name, d.sha256, d.chars, d.token_ids_sha256) for d in memory.documents]
    for s in memory.spans:
        said.append((s.token_start, s.token_end, s.char_start, s.char_end, s.kind, s.positions))
        said.append((s.ratio, s.fidelity, s.refine_steps, s.refine_seconds, s.written_back))
    return said


def test_header_says_everything_but_slots_and_text(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "m.icae"
    memory.save(path)
    header = read_header(path)
    assert said_of(header) == said_of(memory)
    assert header.provenance == memory.provenance
    assert (header.created_by, header.slot_count) == (memory.created_by, memory.slot_count)
    assert (header.tokens, header.ratio) == (memory.tokens, memory.ratio)
    assert header.fidelity == memory.fidelity
    assert header.file_bytes == path.stat().st_size
    assert header.has_source
    assert (header.verbatim_tokens, header.positions, header.format_version) == (0, 5, 3)
    assert not header.has_token_fidelity
    memory.without_source().save(path)
    assert not read_header(path).has_source


def test_header_of_slots_and_tokens_counts_both(mixed: Memory, tmp_path: Path) -> None:
    mixed.save(tmp_path / "m.icae")
    header = read_header(tmp_path / "m.icae")
    assert said_of(header) == said_of(mixed)
    assert (header.slot_count, header.verbatim_tokens, header.positions) == (7, 5, 12)
    assert (header.ratio, header.fidelity) == (mixed.ratio, mixed.fidelity)
    assert header.has_token_fidelity


def test_header_is_read_without_reading_slots(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise AssertionError("a tensor was read")

    memory.save(tmp_path / "m.icae")
    monkeypatch.setattr("icae.memory.file.read_tensor", fail)
    assert read_header(tmp_path / "m.icae").slot_count == 5
    with pytest.raises(AssertionError):
        Memory.load(tmp_path / "m.icae")


@pytest.mark.parametrize("read", [Memory.load, read_header])
class TestUnreadable:
    """Files that are no memory, each with its own message from both readers."""

    def test_missing_file(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        with pytest.raises(MemoryFileError, match="There is no memory file"):
            read(tmp_path / "none.icae")

    def test_folder(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        with pytest.raises(MemoryFileError, match="folder"):
            read(tmp_path)

    def test_pipe_does_not_block(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(MemoryFileError, match="pipe"):
            read(tmp_path / "pipe")

    def test_file_as_folder(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(MemoryFileError, match="cannot be read"):
            read(tmp_path / "file" / "m.icae")

    def test_impossible_path(self, read: Callable[[Path], object]) -> None:
        with pytest.raises(MemoryFileError, match="cannot be read"):
            read(Path("a\0b"))

    def test_empty_file(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        (tmp_path / "m.icae").write_bytes(b"")
        with pytest.raises(MemoryFileError, match="is empty"):
            read(tmp_path / "m.icae")

    def test_file_of_another_kind(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        gguf, short = b"GGUF\x03\x00\x00\x00{}", b"\x02" + bytes(7) + b"[]"
        for content in (b"x", b"Just some notes, not a memory.\n", gguf, short):
            (tmp_path / "m.icae").write_bytes(content)
            with pytest.raises(MemoryFileError, match="is not a memory file"):
                read(tmp_path / "m.icae")

    def test_truncated_file(
        self, read: Callable[[Path], object], memory: Memory, tmp_path: Path
    ) -> None:
        path = tmp_path / "m.icae"
        memory.save(path)
        content = path.read_bytes()
        last = len(content) - 1
        for size in (*range(20), *range(20, last, 9), last):
            path.write_bytes(content[:size])
            with pytest.raises(MemoryFileError, match=r"truncated|empty|not a memory file") as got:
                read(path)
            assert size < 9 or "truncated" in str(got.value)

    def test_file_with_bytes_appended(
        self, read: Callable[[Path], object], memory: Memory, tmp_path: Path
    ) -> None:
        path = tmp_path / "m.icae"
        memory.save(path)
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(MemoryFileError, match="1 bytes follow"):
            read(path)


@pytest.mark.parametrize("offset", range(8))
def test_any_flipped_byte_is_refused(
    build: Callable[..., Memory], tmp_path: Path, offset: int
) -> None:
    path = tmp_path / "m.icae"
    build("abcde", "s3 t2").save(path)
    content = bytearray(path.read_bytes())
    for position in range(offset, len(content), 8):
        mask = 0xFF if position % 3 == 0 else 1 << position % 8
        content[position] ^= mask
        path.write_bytes(content)
        with pytest.raises(MemoryFileError):
            Memory.load(path)
        content[position] ^= mask


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_overwritten_stretch_gives_an_error_or_the_same_memory(
    mixed: Memory, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "m.icae"
    mixed.save(path)
    content = path.read_bytes()
    start = data.draw(st.integers(0, len(content) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=40) | st.text(' {}[],:"0e-\\').map(str.encode))
    path.write_bytes(content[:start] + noise + content[start + len(noise) :])
    try:
        loaded = Memory.load(path)
    except MemoryFileError:
        return
    assert loaded == mixed


def test_every_error_says_how_to_fix_it(tmp_path: Path) -> None:
    (tmp_path / "m.icae").write_bytes(b"something else")
    with pytest.raises(MemoryFileError) as caught:
        Memory.load(tmp_path / "m.icae")
    assert caught.value.fix is not None
    assert str(tmp_path / "m.icae") in caught.value.message


@pytest.mark.parametrize("call", ["replace", "fsync", "open"])
def test_failed_save_keeps_the_previous_file_and_leaves_no_other(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "m.icae"
    memory.save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(MemoryFileError, match=r"(?s)No space left.*fix: "):
            (memory + memory).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_into_a_missing_folder_says_to_create_it(memory: Memory, tmp_path: Path) -> None:
    with pytest.raises(MemoryFileError, match=r"Create the folder .*missing"):
        memory.save(tmp_path / "missing" / "m.icae")


def test_save_into_a_folder_without_permission_says_so(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(MemoryFileError, match=r"(?s)Permission denied.*Choose a folder"):
        memory.save(tmp_path / "m.icae")


def test_save_over_a_folder_or_pipe_is_refused(memory: Memory, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(MemoryFileError, match="folder or device"):
            memory.save(tmp_path / name)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "folder", tmp_path / "pipe"]


def test_slots_too_large_for_bfloat16_are_refused(
    memory: Memory, as_bfloat16: Convert, tmp_path: Path
) -> None:
    slots = memory.spans[0].slots_KD.copy()
    slots[0, 0] = np.finfo(np.float32).max
    first = replace(memory.spans[0], payload=Embeddings(slots_KD=slots))
    with pytest.raises(MemoryFileError, match="float32"):
        as_bfloat16(with_spans(memory, (first, *memory.spans[1:]))).save(tmp_path / "m.icae")
    assert list(tmp_path.iterdir()) == []


def test_bytes_are_those_of_the_file_and_hold_a_bounded_text(
    memory: Memory, tmp_path: Path
) -> None:
    memory.save(tmp_path / "m.icae")
    data = memory_bytes(memory)
    assert data == (tmp_path / "m.icae").read_bytes()
    assert memory_from_bytes(data, where="upload") == memory
    with pytest.raises(MemoryFileError, match="upload holds too much text"):
        memory_from_bytes(data, where="upload", max_source_bytes=20)
