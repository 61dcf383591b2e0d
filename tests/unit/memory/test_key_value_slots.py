"""Keys and values as a file keeps them: rounded once, mapped, never read leniently."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors

from icae.config.types import KeyValueShape
from icae.errors import ConfigError, MemoryFileError
from icae.memory import (
    Embeddings,
    KeyValueSlots,
    Memory,
    memory_bytes,
    memory_from_bytes,
    memory_size,
    merge,
    read_header,
)
from icae.memory.bfloat16 import from_bfloat16_bits
from icae.memory.key_values import KeyValueRun
from word_memories import in_key_values, with_spans

TakeApart = Callable[[Memory], Any]
SHAPE = KeyValueShape(layers=2, heads=1, width=3)


def numbers(slots: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(slots, *SHAPE.axes)).astype(np.float32)


def test_bfloat16_is_the_nearest_and_int8_the_nearest_step_of_its_channel():
    pairs = numbers(50)
    near = KeyValueSlots(pairs_KY2HW=pairs, dtype="bfloat16").pairs_KY2HW
    np.testing.assert_array_less(np.abs(near - pairs), np.abs(pairs) * 2**-8 + 1e-30)

    coded = KeyValueSlots(pairs_KY2HW=pairs, dtype="int8").pairs_KY2HW
    largest = np.abs(pairs).max(axis=0)
    assert (np.abs(coded - pairs) <= largest / 127 * (0.5 + 2**-7)).all()
    again = KeyValueSlots(pairs_KY2HW=near, dtype="bfloat16")
    assert np.array_equal(again.pairs_KY2HW, near)


@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-38, 1.0, 3e38])
def test_numbers_of_any_size_have_codes(scale):
    pairs = np.sign(numbers(4)) * np.float32(scale)
    coded = KeyValueSlots(pairs_KY2HW=pairs.astype(np.float32), dtype="int8").pairs_KY2HW
    assert np.isfinite(coded).all()
    np.testing.assert_allclose(coded, pairs, rtol=0.02, atol=1e-40)


def test_parts_and_gathered_runs_are_those_of_the_numbers(pairs):
    own = [s.payload for s in pairs.spans if isinstance(s.payload, KeyValueSlots)]
    expected = np.concatenate([payload.pairs_KY2HW for payload in own])
    together = KeyValueSlots.gather((s.payload for s in pairs.spans), pairs.provenance)
    assert together.positions == len(expected) == pairs.slot_count
    assert np.array_equal(together.pairs_KY2HW, expected)
    for start, end in ((0, 1), (1, 5), (2, len(expected)), (3, 3)):
        assert np.array_equal(together.part(start, end).pairs_KY2HW, expected[start:end])
    assert together.part(0, own[0].positions) == own[0] != own[1]
    nothing = KeyValueSlots.gather((), pairs.provenance)
    assert nothing.pairs_KY2HW.shape == (0, *SHAPE.axes)


def test_a_memory_comes_back_as_it_was_and_lies_in_its_file(pairs, path):
    pairs.save(path)
    loaded = Memory.load(path)
    assert loaded == pairs
    assert memory_bytes(loaded) == path.read_bytes()
    assert memory_size(loaded) == path.stat().st_size
    assert memory_from_bytes(memory_bytes(pairs), where="upload") == pairs
    payload = loaded.spans[0].payload
    assert isinstance(payload, KeyValueSlots)
    base: Any = payload.runs[0].codes_KY2HW
    assert not base.flags.writeable
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
    # Another file in its place changes nothing.
    (pairs + pairs).save(path)
    assert loaded == pairs != Memory.load(path)


def test_slots_have_the_digest_of_their_file_also_before_they_are_in_one(pairs, path):
    pairs.save(path)
    loaded = Memory.load(path)
    path.write_bytes(memory_bytes(pairs + pairs))  # where it lies; all of it is mapped
    for span, own, sha256 in zip(
        loaded.spans, pairs.spans, read_header(path).span_sha256, strict=False
    ):
        if isinstance(own.payload, KeyValueSlots):
            assert [run.digest for run in span.payload.runs] == [sha256]
            assert [run.digest for run in own.payload.runs] == [sha256]


def test_header_says_the_shape_and_how_well_each_span_is_found(pairs, path):
    pairs.save(path)
    header = read_header(path)
    assert header.provenance.key_values == SHAPE
    assert [span.recall for span in header.spans] == [span.recall for span in pairs.spans]
    assert {span.kind for span in header.spans} == {"key-values", "tokens"}
    assert header.slot_count == pairs.slot_count


def test_safetensors_library_reads_a_row_for_each_slot_and_steps_for_each_span(pairs):
    tensors = {n: t for n, t in safetensors.deserialize(memory_bytes(pairs)) if "key" in n}
    found = {name: (t["dtype"], t["shape"]) for name, t in tensors.items()}
    spans = sum(span.kind == "key-values" for span in pairs.spans)
    codes = "BF16" if pairs.provenance.slot_dtype == "bfloat16" else "I8"
    expected = {"key_values": (codes, [pairs.slot_count, *SHAPE.axes])}
    if codes == "I8":
        expected["key_value_steps"] = ("BF16", [spans, *SHAPE.axes])
    assert found == expected


def test_edits_keep_the_bits_of_the_spans_that_stay(pairs):
    apart = [pairs.select([i]) for i in range(len(pairs.spans))]
    assert [memory.spans[0].payload for memory in apart] == [s.payload for s in pairs.spans]
    together = merge(apart)
    assert [s.payload for s in together.spans] == [s.payload for s in pairs.spans]
    assert [s.recall for s in together.spans] == [s.recall for s in pairs.spans]
    cut = pairs.replace_spans(0, 0, 1, None)
    assert [s.payload for s in cut.spans] == [s.payload for s in pairs.spans[1:]]


def test_another_writer_that_follows_the_document_is_read(pairs, path, taken_apart):
    file = taken_apart(pairs)
    file.change_header(lambda header: [span.update(sha256="") for span in header["spans"]])
    assert Memory.load(file.spans_sealed().write(path)) == pairs


def test_a_changed_number_names_its_span(pairs, path, taken_apart):
    file = taken_apart(pairs)
    begin, end = file.entries["key_values"]["data_offsets"]
    for at, span in ((begin, 0), (end - 1, 5)):
        data = bytearray(file.data)
        data[at] ^= 1
        path.write_bytes(b"")
        changed = replace(file, data=bytes(data)).sealed().write(path)
        with pytest.raises(MemoryFileError, match=f"span {span}, which does not match"):
            Memory.load(changed)


@pytest.mark.parametrize(
    ("dtype", "tensor", "number"),
    [
        ("bfloat16", "key_values", b"\x80\x7f"),
        ("bfloat16", "key_values", b"\xc0\xff"),
        ("int8", "key_values", b"\x80"),
        ("int8", "key_value_steps", b"\x80\x7f"),
        ("int8", "key_value_steps", b"\x80\xbf"),
        ("int8", "key_value_steps", b"\x7f\x7f"),
    ],
)
def test_numbers_that_are_not_finite_are_refused_though_the_digests_are_right(
    mixed, path, taken_apart, dtype, tensor, number
):
    file = taken_apart(in_key_values(mixed, dtype))
    at = file.entries[tensor]["data_offsets"][0]
    file.data = file.data[:at] + number + file.data[at + len(number) :]
    with pytest.raises(MemoryFileError, match="not finite"):
        Memory.load(file.spans_sealed().write(path))


@pytest.mark.parametrize(
    "change",
    [
        {"key_values": None},
        {"key_values": None, "slot_dtype": "bfloat16"},
        {"key_values": {"layers": 1, "heads": 1, "width": 3}},
        {"key_values": {"layers": 2, "heads": 1, "width": 4}},
        {"key_values": {"layers": 2, "heads": 0, "width": 3}},
        {"key_values": {"layers": 2, "heads": 1}},
        {"key_values": {"layers": 10**9, "heads": 10**9, "width": 10**9}},
        {"slot_dtype": "float32"},
        {"slot_dtype": "int4"},
    ],
    ids=str,
)
def test_sizes_are_checked_before_anything_is_read(pairs, path, taken_apart, change):
    file = taken_apart(pairs).change_header(lambda header: header["provenance"].update(change))
    file.sealed().write(path)
    for read in (read_header, Memory.load):
        with pytest.raises(MemoryFileError, match="damaged"):
            read(path)


def test_slots_of_one_form_alone_are_in_a_memory(pairs, path, taken_apart, provenance):
    slots = Embeddings(slots_KD=np.zeros((2, 3), dtype=np.float32))
    first = replace(pairs.spans[0], payload=slots)
    with pytest.raises(ConfigError, match="another form"):
        with_spans(pairs, [first, *pairs.spans[1:]])
    file = taken_apart(pairs).change_header(lambda h: h["spans"][0].update(kind="slots"))
    with pytest.raises(MemoryFileError, match="another form"):
        read_header(file.sealed().write(path))
    with pytest.raises(ConfigError, match="no keys and values"):
        KeyValueSlots.gather((), provenance)


def test_numbers_of_another_decoder_or_way_to_store_are_refused(pairs):
    other = "int8" if pairs.provenance.slot_dtype == "bfloat16" else "bfloat16"
    for provenance in (
        replace(pairs.provenance, slot_dtype=other),  # type: ignore[arg-type]
        replace(pairs.provenance, key_values=replace(SHAPE, width=4)),
    ):
        with pytest.raises(ConfigError, match="another decoder, or stored in another way"):
            replace(pairs, provenance=provenance)


def test_damaged_numbers_are_refused_where_they_are_made():
    damaged = numbers(2)
    damaged[1, 0, 0, 0, 0] = np.inf
    for pairs in (damaged, numbers(2)[:, :, :1], numbers(0), numbers(2).astype(np.float64)):
        with pytest.raises(ConfigError):
            KeyValueSlots(pairs_KY2HW=pairs)
    codes = np.zeros((2, *SHAPE.axes), dtype=np.int8)
    with pytest.raises(ConfigError, match="Steps are missing"):
        KeyValueRun(codes_KY2HW=codes, steps_Y2HW=np.zeros((1, 2, 1, 3), dtype=np.uint16))
    run = KeyValueRun(codes_KY2HW=codes, steps_Y2HW=np.ones(SHAPE.axes, dtype=np.uint16))
    assert from_bfloat16_bits(np.ones(1, dtype=np.uint16))[0] > 0
    assert not run.pairs_KY2HW.any()
