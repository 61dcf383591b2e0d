"""Files whose digest is right but whose header is not: only strict reading refuses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from icae.errors import MemoryFileError
from icae.memory import Memory, read_header

TakeApart = Callable[[Memory], Any]
Change = Callable[[dict[str, Any]], object]
Changed = Callable[[Change], Path]


@pytest.fixture
def change_of(path, taken_apart):
    """``change_of(memory, change)``: its file with a header changed in place, and sealed again."""
    return lambda memory, change: taken_apart(memory).change_header(change).sealed().write(path)


@pytest.fixture
def changed(memory, change_of):
    return lambda change: change_of(memory, change)


@pytest.fixture
def mixed_changed(mixed, change_of):
    return lambda change: change_of(mixed, change)


def refused(path: Path, message: str) -> None:
    for read in (Memory.load, read_header):
        with pytest.raises(MemoryFileError, match=message):
            read(path)


def test_another_writer_that_follows_the_document_is_read(memory, mixed, changed, mixed_changed):
    assert Memory.load(changed(lambda header: None)) == memory
    assert Memory.load(mixed_changed(lambda header: None)) == mixed


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all keys of a header, the first item standing for every list."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in [(*path, k), *_places(v, (*path, k))]]
    if isinstance(value, list):
        return _places(value[0], (*path, 0))
    return []


def _holder(header: dict[str, Any], place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        header = header[key]
    return header


def test_header_without_any_one_key_is_refused(memory, taken_apart, changed):
    places = _places(taken_apart(memory).header)
    assert len(places) == 39
    for place in places:
        path = changed(lambda header, p=place: _holder(header, p).pop(p[-1]))  # type: ignore[misc]
        refused(path, f"(?s)missing.*{place[-1]}")


@pytest.mark.parametrize(
    "wrong", [{}, [], True, -1, 1.5, "?", "", [[]], {"a": None}, 10**400], ids=lambda w: repr(w)[:9]
)
def test_header_with_any_one_value_wrong_gives_no_other_error(memory, taken_apart, changed, wrong):
    count = 0
    places = _places(taken_apart(memory).header)
    for place in places:

        def change(header: dict[str, Any], place: tuple[Any, ...] = place) -> None:
            _holder(header, place)[place[-1]] = wrong

        try:
            Memory.load(changed(change))
        except MemoryFileError:
            count += 1
    # Free text (names, digests, created_by), ratio, seconds and a flag take some of the values.
    free = {"'?'": 7, "''": 2, "1.5": 2, "True": 1}
    assert count == len(places) - free.get(repr(wrong), 0)


@pytest.mark.parametrize("section", ["documents", "provenance", "spans", None])
def test_header_with_an_unknown_key_is_refused(changed, section):
    def change(header: dict[str, Any]) -> None:
        target = header[section] if section else header
        (target[0] if isinstance(target, list) else target)["source"] = "x"

    refused(changed(change), "(?s)unknown key.*source")


def test_header_whose_text_is_another_or_longer_is_refused(changed):
    with pytest.raises(MemoryFileError, match="another text"):
        Memory.load(changed(lambda header: header["documents"][1].update(sha256="0" * 64)))
    with pytest.raises(MemoryFileError, match="longer than the 10 bytes"):
        Memory.load(changed(lambda header: header.update(source_bytes=10)))


@pytest.mark.parametrize(
    "change",
    [
        {"slot_count": 8},
        {"verbatim_count": 4},
        {"verbatim_count": -1},
        {"token_fidelity": False},
        {"source_bytes": None},
        {"created_by": "\ud800"},
    ],
    ids=ascii,
)
def test_header_that_contradicts_the_tensors_is_refused(mixed_changed, change):
    refused(mixed_changed(lambda header: header.update(change)), "damaged")


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"kind": "tokens"}),
        (0, {"verbatim_start": 1}),
        (0, {"slot_end": 1}),
        (1, {"kind": "slots"}),
        (1, {"verbatim_start": 1}),
        (1, {"slot_start": 1, "slot_end": 1}),
        (1, {"ratio": 3.0}),
        (1, {"fidelity": None}),
        (2, {"document": 1}),
        (4, {"document": 0}),
        (6, {"document": 2}),
        (3, {"token_end": 11}),
    ],
    ids=str,
)
def test_span_that_contradicts_the_rest_is_refused(mixed_changed, index, change):
    refused(mixed_changed(lambda header: header["spans"][index].update(change)), "damaged")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "another"}, "safetensors file, but not a memory"),
        ({"format": None}, "safetensors file, but not a memory"),
        ({"format_version": "5"}, r"(?s)newer icae.*Upgrade"),
        ({"format_version": "5", "header": None, "new": "x"}, r"(?s)newer icae.*Upgrade"),
        ({"format_version": "0"}, "format_version"),
        ({"format_version": "one"}, "format_version"),
        ({"format_version": "²"}, "format_version"),
        ({"format_version": None}, "format_version"),
        ({"header": None}, "metadata"),
        ({"sha256": None}, "metadata"),
        ({"extra": "x"}, "metadata"),
        ({"sha256": "0" * 64}, "changed after it was written"),
        ({"header": ""}, "header"),
        ({"header": "[]"}, "header"),
        ({"header": '{"a":NaN}'}, "header"),
        ({"header": '{"a":1,"a":1}'}, "header"),
        ({"header": '{"\\ud800":1}'}, "header"),
        ({"header": "[1] 2"}, "header"),
        ({"header": "9" * 5000}, "header"),
        ({"header": "[" * 50_000}, "header"),
        ({"header": "\ud800"}, "header"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_metadata_of_another_file_or_version_has_its_own_message(
    memory, path, taken_apart, change, message
):
    file = taken_apart(memory)
    merged = {**file.metadata, **change}
    file.metadata = {key: text for key, text in merged.items() if text is not None}
    with pytest.raises(MemoryFileError, match=message):
        Memory.load(file.write(path))


@pytest.mark.parametrize("bits", [0x7F800000, 0x7FC00000])
def test_slots_that_are_not_finite_are_refused_though_the_digest_is_right(
    memory, path, taken_apart, bits
):
    file = taken_apart(memory)
    file.data = bits.to_bytes(4, "little") + file.data[4:]
    with pytest.raises(MemoryFileError, match="not finite"):
        Memory.load(file.spans_sealed().write(path))


@pytest.mark.parametrize(
    ("tensor", "offset", "flip", "message"),
    [
        ("reproduced", 0, 0b1, "another fidelity"),
        ("reproduced", 0, 0b1000, "does not exist"),
        ("confidence", 2, 0b1, "not certain"),
    ],
)
def test_token_that_contradicts_its_span_is_refused(
    build, path, taken_apart, tensor, offset, flip, message
):
    file = taken_apart(build("abc", "s2 t1"))
    at = file.entries[tensor]["data_offsets"][0] + offset
    file.data = file.data[:at] + bytes([file.data[at] ^ flip]) + file.data[at + 1 :]
    with pytest.raises(MemoryFileError, match=message):
        Memory.load(file.sealed().write(path))


ADDED = {
    2: ("token_fidelity", "verbatim_count"),
    3: (),
    4: (),
}
ADDED_TO_SPANS = {
    2: ("kind", "verbatim_start", "verbatim_end", "refine_steps", "refine_seconds"),
    3: ("written_back",),
    4: ("recall", "sha256"),
}


@pytest.mark.parametrize(
    ("version", "key"),
    [
        (1, "kind"),
        (1, "token_fidelity"),
        (2, "written_back"),
        (3, "recall"),
        (3, "sha256"),
        (3, "key_values"),
        (3, None),
    ],
)
def test_a_version_knows_nothing_of_what_later_ones_added(memory, path, taken_apart, version, key):
    def change(header: dict[str, Any]) -> None:
        for later in range(version + 1, 5):
            for added in set(ADDED[later]) - {key}:
                del header[added]
            for span in header["spans"]:
                for added in set(ADDED_TO_SPANS[later]) - {key}:
                    del span[added]
        if key != "key_values":
            del header["provenance"]["key_values"]

    file = taken_apart(memory).change_header(change)
    file.metadata["format_version"] = str(version)
    file.sealed().write(path)
    if key is None:
        assert Memory.load(path) == memory
    else:
        refused(path, f"(?s)unknown key.*{key}")


def test_bomb_in_a_sealed_file_is_refused(memory, path, taken_apart):
    file = taken_apart(memory)
    bomb = zstandard.compress(b'["' + b"x" * 20_000_000 + b'",null]')
    start = file.entries["source_zstd"]["data_offsets"][0]
    file.entries["source_zstd"].update(shape=[len(bomb)], data_offsets=[start, start + len(bomb)])
    file.data = file.data[:start] + bomb
    with pytest.raises(MemoryFileError, match="declared"):
        Memory.load(file.sealed().write(path))
