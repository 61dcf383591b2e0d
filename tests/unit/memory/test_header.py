"""Files whose digest is right but whose header is not: only strict reading refuses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from icae.errors import MemoryFileError
from icae.memory import Memory, read_header

Unpack = Callable[[Path], tuple[dict[str, str], dict[str, Any], bytes]]
Repack = Callable[..., None]
Rewrite = Callable[[Callable[[dict[str, Any]], object]], Path]


@pytest.fixture
def rewritten(memory: Memory, tmp_path: Path, unpacked: Unpack, repacked: Repack) -> Rewrite:
    """Save the memory, change its header in place, and seal it again."""

    def rewrite(change: Callable[[dict[str, Any]], object]) -> Path:
        path = tmp_path / "m.icae"
        memory.save(path)
        metadata, entries, data = unpacked(path)
        header = json.loads(metadata["header"])
        change(header)
        repacked(path, {**metadata, "header": json.dumps(header)}, entries, data)
        return path

    return rewrite


def test_another_writer_that_follows_the_document_is_read(
    memory: Memory, rewritten: Rewrite
) -> None:
    assert Memory.load(rewritten(lambda header: None)) == memory


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all keys of a header, the first item standing for every list."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in [(*path, k), *_places(v, (*path, k))]]
    if isinstance(value, list):
        return _places(value[0], (*path, 0))
    return []


def _header(memory: Memory, tmp_path: Path, unpacked: Unpack) -> dict[str, Any]:
    memory.save(tmp_path / "m.icae")
    header: dict[str, Any] = json.loads(unpacked(tmp_path / "m.icae")[0]["header"])
    return header


def _holder(header: dict[str, Any], place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        header = header[key]
    return header


def test_header_without_any_one_key_is_refused(
    memory: Memory, tmp_path: Path, unpacked: Unpack, rewritten: Rewrite
) -> None:
    places = _places(_header(memory, tmp_path, unpacked))
    assert len(places) == 36
    for place in places:
        path = rewritten(lambda header, p=place: _holder(header, p).pop(p[-1]))  # type: ignore[misc]
        for read in (Memory.load, read_header):
            with pytest.raises(MemoryFileError, match=f"(?s)missing.*{place[-1]}"):
                read(path)


@pytest.mark.parametrize(
    "wrong", [{}, [], True, -1, 1.5, "?", "", [[]], {"a": None}, 10**400], ids=lambda w: repr(w)[:9]
)
def test_header_with_any_one_value_wrong_gives_no_other_error(
    memory: Memory, tmp_path: Path, unpacked: Unpack, rewritten: Rewrite, wrong: Any
) -> None:
    refused = 0
    places = _places(_header(memory, tmp_path, unpacked))
    for place in places:

        def change(header: dict[str, Any], place: tuple[Any, ...] = place) -> None:
            _holder(header, place)[place[-1]] = wrong

        try:
            Memory.load(rewritten(change))
        except MemoryFileError:
            refused += 1
    # Free text (names, digests, created_by), ratio, seconds and a flag take some of the values.
    free = {"'?'": 7, "''": 2, "1.5": 2, "True": 1}
    assert refused == len(places) - free.get(repr(wrong), 0)


@pytest.mark.parametrize("section", ["documents", "provenance", "spans", None])
def test_header_with_an_unknown_key_is_refused(rewritten: Rewrite, section: str | None) -> None:
    def change(header: dict[str, Any]) -> None:
        target = header[section] if section else header
        (target[0] if isinstance(target, list) else target)["source"] = "x"

    with pytest.raises(MemoryFileError, match="unknown key"):
        Memory.load(rewritten(change))


def test_header_whose_documents_describe_another_text_is_refused(rewritten: Rewrite) -> None:
    with pytest.raises(MemoryFileError, match="another text"):
        Memory.load(rewritten(lambda header: header["documents"][1].update(sha256="0" * 64)))


def test_header_that_declares_less_text_than_there_is_is_refused(rewritten: Rewrite) -> None:
    with pytest.raises(MemoryFileError, match="longer than the 10 bytes"):
        Memory.load(rewritten(lambda header: header.update(source_bytes=10)))


@pytest.mark.parametrize(
    "change",
    [
        {"slot_count": 6},
        {"verbatim_count": 1},
        {"verbatim_count": -1},
        {"token_fidelity": True},
        {"source_bytes": None},
        {"created_by": "\ud800"},
    ],
    ids=ascii,
)
def test_header_that_contradicts_the_tensors_is_refused(
    rewritten: Rewrite, change: dict[str, Any]
) -> None:
    path = rewritten(lambda header: header.update(change))
    for read in (Memory.load, read_header):
        with pytest.raises(MemoryFileError, match="damaged"):
            read(path)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"a":NaN}', "[" * 50_000, "\ud800"])
def test_header_that_is_not_the_expected_json_is_refused(
    memory: Memory, tmp_path: Path, unpacked: Unpack, text: str
) -> None:
    path = tmp_path / "m.icae"
    memory.save(path)
    metadata, entries, data = unpacked(path)
    index = json.dumps({"__metadata__": {**metadata, "header": text}, **entries}).encode()
    path.write_bytes(len(index).to_bytes(8, "little") + index + data)
    for read in (Memory.load, read_header):
        with pytest.raises(MemoryFileError, match="header"):
            read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "another"}, "safetensors file, but not a memory"),
        ({"format": None}, "safetensors file, but not a memory"),
        ({"format_version": "4"}, r"(?s)newer icae.*Upgrade"),
        ({"format_version": "999"}, r"(?s)newer icae.*Upgrade"),
        ({"format_version": "4", "header": None, "new": "x"}, r"(?s)newer icae.*Upgrade"),
        ({"format_version": "0"}, "format_version"),
        ({"format_version": "one"}, "format_version"),
        ({"format_version": "²"}, "format_version"),
        ({"format_version": None}, "format_version"),
        ({"header": None}, "metadata"),
        ({"sha256": None}, "metadata"),
        ({"extra": "x"}, "metadata"),
        ({"sha256": "0" * 64}, "changed after it was written"),
    ],
)
def test_metadata_of_another_file_or_version_has_its_own_message(
    memory: Memory, tmp_path: Path, unpacked: Unpack, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "m.icae"
    memory.save(path)
    metadata, entries, data = unpacked(path)
    changed = {key: text for key, text in {**metadata, **change}.items() if text is not None}
    index = json.dumps({"__metadata__": changed, **entries}).encode()
    path.write_bytes(len(index).to_bytes(8, "little") + index + data)
    with pytest.raises(MemoryFileError, match=message):
        Memory.load(path)


def test_upper_case_digest_is_refused(memory: Memory, tmp_path: Path, unpacked: Unpack) -> None:
    path = tmp_path / "m.icae"
    memory.save(path)
    digest = unpacked(path)[0]["sha256"]
    path.write_bytes(path.read_bytes().replace(digest.encode(), digest.upper().encode()))
    with pytest.raises(MemoryFileError, match="SHA-256"):
        Memory.load(path)


@pytest.mark.parametrize("bits", [0x7F800000, 0x7FC00000])
def test_slots_that_are_not_finite_are_refused_though_the_digest_is_right(
    memory: Memory, tmp_path: Path, unpacked: Unpack, repacked: Repack, bits: int
) -> None:
    path = tmp_path / "m.icae"
    memory.save(path)
    metadata, entries, data = unpacked(path)
    repacked(path, metadata, entries, bits.to_bytes(4, "little") + data[4:])
    with pytest.raises(MemoryFileError, match="not finite"):
        Memory.load(path)


@pytest.fixture
def resealed(mixed: Memory, tmp_path: Path, unpacked: Unpack, repacked: Repack) -> Any:
    """Save a memory of slots and tokens, change header and tensors, and seal it again."""

    def reseal(
        change: Callable[[dict[str, Any]], object] = lambda header: None,
        **tensors: tuple[int, int],
    ) -> Path:
        path = tmp_path / "m.icae"
        mixed.save(path)
        metadata, entries, data = unpacked(path)
        header = json.loads(metadata["header"])
        change(header)
        content = bytearray(data)
        for name, (offset, value) in tensors.items():
            content[entries[name]["data_offsets"][0] + offset] = value
        repacked(path, {**metadata, "header": json.dumps(header)}, entries, bytes(content))
        return path

    return reseal


def test_sealed_memory_of_slots_and_tokens_is_read(mixed: Memory, resealed: Any) -> None:
    assert Memory.load(resealed()) == mixed


@pytest.mark.parametrize(
    "change",
    [
        {"verbatim_count": 4},
        {"token_fidelity": False},
        {"slot_count": 8},
    ],
    ids=str,
)
def test_header_that_contradicts_tensors_of_tokens_is_refused(
    resealed: Any, change: dict[str, Any]
) -> None:
    path = resealed(lambda header: header.update(change))
    for read in (Memory.load, read_header):
        with pytest.raises(MemoryFileError, match="damaged"):
            read(path)


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"kind": "tokens"}),
        (0, {"verbatim_start": 1}),
        (1, {"kind": "slots"}),
        (1, {"verbatim_start": 1}),
        (1, {"ratio": 3.0}),
        (1, {"fidelity": None}),
    ],
    ids=str,
)
def test_span_that_contradicts_its_kind_is_refused(
    resealed: Any, index: int, change: dict[str, Any]
) -> None:
    path = resealed(lambda header: header["spans"][index].update(change))
    for read in (Memory.load, read_header):
        with pytest.raises(MemoryFileError, match="damaged"):
            read(path)


def test_token_that_contradicts_its_span_is_refused(mixed: Memory, resealed: Any) -> None:
    fidelity = mixed.token_fidelity
    assert fidelity is not None
    first = sum(int(bit) << i for i, bit in enumerate(fidelity.reproduced[:8]))
    with pytest.raises(MemoryFileError, match="another fidelity"):
        Memory.load(resealed(reproduced=(0, first ^ 1)))
    with pytest.raises(MemoryFileError, match="not certain"):
        Memory.load(resealed(confidence=(3, 254)))


def test_bit_of_a_token_that_does_not_exist_is_refused(
    build: Callable[..., Memory], tmp_path: Path, unpacked: Unpack, repacked: Repack
) -> None:
    path = tmp_path / "m.icae"
    build("abc", "t3").save(path)
    metadata, entries, data = unpacked(path)
    start = entries["reproduced"]["data_offsets"][0]
    assert data[start] == 0b111
    repacked(path, metadata, entries, data[:start] + b"\x0f" + data[start + 1 :])
    with pytest.raises(MemoryFileError, match="does not exist"):
        Memory.load(path)


@pytest.mark.parametrize("key", ["kind", "verbatim_start", "token_fidelity", "verbatim_count"])
def test_version_1_knows_nothing_of_what_version_2_added(
    memory: Memory, tmp_path: Path, unpacked: Unpack, key: str
) -> None:
    path = tmp_path / "m.icae"
    memory.save(path)
    metadata, entries, data = unpacked(path)
    header = json.loads(metadata["header"])
    for added in ("token_fidelity", "verbatim_count"):
        if added != key:
            del header[added]
    for span in header["spans"]:
        for added in (
            "kind",
            "verbatim_start",
            "verbatim_end",
            "refine_steps",
            "refine_seconds",
            "written_back",
        ):
            if added != key:
                del span[added]
    changed = {**metadata, "format_version": "1", "header": json.dumps(header)}
    index = json.dumps({"__metadata__": changed, **entries}).encode()
    path.write_bytes(len(index).to_bytes(8, "little") + index + data)
    with pytest.raises(MemoryFileError, match=f"(?s)unknown key.*{key}"):
        read_header(path)


def test_version_2_knows_nothing_of_writing_back(
    memory: Memory, tmp_path: Path, unpacked: Unpack
) -> None:
    path = tmp_path / "m.icae"
    memory.save(path)
    metadata, entries, data = unpacked(path)
    index = json.dumps({"__metadata__": {**metadata, "format_version": "2"}, **entries}).encode()
    path.write_bytes(len(index).to_bytes(8, "little") + index + data)
    with pytest.raises(MemoryFileError, match=r"(?s)unknown key.*written_back"):
        read_header(path)


def test_bomb_in_a_sealed_file_is_refused(
    memory: Memory, tmp_path: Path, unpacked: Unpack, repacked: Repack
) -> None:
    path = tmp_path / "m.icae"
    memory.save(path)
    metadata, entries, data = unpacked(path)
    bomb = zstandard.compress(b'["' + b"x" * 20_000_000 + b'",null]')
    start = entries["source_zstd"]["data_offsets"][0]
    entries["source_zstd"].update(shape=[len(bomb)], data_offsets=[start, start + len(bomb)])
    repacked(path, metadata, entries, data[:start] + bomb)
    with pytest.raises(MemoryFileError, match="declared"):
        Memory.load(path)
