"""The documents of a bulk run, cut into blocks that any process can read by itself.

A block names places in files, no text. Blocks depend on the files and the block size alone,
so a run that goes on later, or elsewhere, has the same ones.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from icae.data.documents import read_document
from icae.data.rows import COMPRESSIONS, open_bytes, read_row_range, row_count
from icae.errors import IcaeError, InputError

Kind = Literal["lines", "rows", "file"]

DOCUMENT_SUFFIXES = (
    *(".txt", ".md", ".markdown", ".html", ".htm", ".xhtml"),
    *(".pdf", ".docx", ".epub", ".rtf"),
)
_KINDS = (
    f".jsonl (plain or under {', '.join(COMPRESSIONS)}), .parquet, {', '.join(DOCUMENT_SUFFIXES)}"
)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive documents of one file.

    Attributes:
        path: The file.
        name: How places in it are named: its path below the input.
        kind: ``lines`` of JSON, ``rows`` of Parquet, or the ``file`` itself.
        first: First line or row, from 0.
        count: How many.
        offset: Byte at which the first of ``lines`` starts, those of a compressed file unpacked.
    """

    path: str
    name: str
    kind: Kind
    first: int = 0
    count: int = 1
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Block:
    """Documents that are compressed together, and written or lost together; counted from 0."""

    index: int
    pieces: tuple[Piece, ...]

    @property
    def documents(self) -> int:
        """Places in it; blank lines count."""
        return sum(piece.count for piece in self.pieces)


@dataclass(frozen=True, kw_only=True)
class BulkDocument:
    """One document: its ``id`` in the input, else its place, such as ``notes.jsonl:7``."""

    id: str
    place: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A document that cannot be compressed, and why."""

    id: str
    place: str
    reason: str


def list_files(source: Path) -> list[tuple[Path, str]]:
    """The files of a bulk run, in order, each with its name: one, or those of a folder and below.

    Raises:
        InputError: If it is missing, of another type, or a folder without documents.
    """
    if source.is_dir():
        inside = sorted(file for file in source.rglob("*") if _is_input(file, source))
        if not inside:
            raise InputError("The folder holds no document.", got=str(source), expected=_KINDS)
        return [(file, file.relative_to(source).as_posix()) for file in inside]
    if not source.exists():
        raise InputError("The input is missing.", got=str(source), expected="a file or folder")
    if _kind(source) is None:
        raise InputError("That type of file is not known.", got=str(source), expected=_KINDS)
    return [(source, source.name)]


def _is_input(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden and _kind(file) is not None


def _kind(path: Path) -> Kind | None:
    suffix = path.suffix.lower()
    if (path.with_suffix("").suffix.lower() if suffix in COMPRESSIONS else suffix) == ".jsonl":
        return "lines"
    if suffix == ".parquet":
        return "rows"
    return "file" if suffix in DOCUMENT_SUFFIXES else None


def cut_blocks(files: Iterable[tuple[Path, str]], *, size: int) -> list[Block]:
    """Cut the documents of files (from `list_files`) into blocks of so many, in order.

    Raises:
        InputError: If a file cannot be read at all.
    """
    blocks: list[Block] = []
    places = itertools.chain.from_iterable(_places(path, name) for path, name in files)
    while taken := list(itertools.islice(places, size)):
        groups = itertools.groupby(taken, key=lambda piece: piece.path)
        joined = [list(group) for _, group in groups]
        pieces = tuple(replace(own[0], count=len(own)) for own in joined)
        blocks.append(Block(index=len(blocks), pieces=pieces))
    return blocks


def _places(path: Path, name: str) -> Iterator[Piece]:
    """Every document of a file by itself."""
    kind = _kind(path) or "file"
    place = functools.partial(Piece, path=str(path), name=name, kind=kind)
    if kind != "lines":
        yield from (place(first=row) for row in range(row_count(path) if kind == "rows" else 1))
        return
    offset = 0
    with open_bytes(path) as lines:
        for row, line in enumerate(lines):
            yield place(first=row, offset=offset)
            offset += len(line)


def read_block(block: Block) -> tuple[list[BulkDocument], list[Rejected]]:
    """Read the documents of a block; those that cannot be read are rejected with the reason.

    Raises:
        InputError: If a file that was there cannot be opened any more.
    """
    found = [one for piece in block.pieces for one in _read_piece(piece)]
    documents = [one for one in found if isinstance(one, BulkDocument)]
    return documents, [one for one in found if isinstance(one, Rejected)]


def require_unique_ids(blocks: Iterable[Block]) -> None:
    """Refuse documents of one id, by which nobody could tell their memories apart.

    Raises:
        InputError: With the places of the first two, or as `read_block`.
    """
    places: dict[str, str] = {}
    for piece in (piece for block in blocks for piece in block.pieces if piece.kind != "file"):
        for one in _read_piece(piece):
            first = places.setdefault(one.id, one.place)
            if first != one.place:
                raise InputError(
                    "Two documents have the same id.",
                    got=f"id {one.id!r} at {first} and at {one.place}",
                    expected="each id once",
                    fix="Rename one, or leave the ids out: a document is then named by its place.",
                )


def _read_piece(piece: Piece) -> Iterator[BulkDocument | Rejected]:
    path, rows = Path(piece.path), range(piece.first, piece.first + piece.count)
    places = [f"{piece.name}:{row + 1}" for row in rows]
    if piece.kind == "lines":
        with open_bytes(path) as lines:
            if lines.seekable():
                lines.seek(piece.offset)
            else:
                collections.deque(itertools.islice(lines, piece.first), maxlen=0)
            for place, data in zip(places, lines, strict=False):
                yield from _of_line(data, place)
    elif piece.kind == "rows":
        records = read_row_range(path, rows.start, piece.count, columns=("id", "text"))
        for place, record in zip(places, records, strict=False):
            yield _of_record(record, place)
    else:
        try:
            yield BulkDocument(id=piece.name, place=piece.name, text=read_document(path).text)
        except InputError as error:
            yield Rejected(id=piece.name, place=piece.name, reason=reason_of(error))


def _of_line(data: bytes, place: str) -> Iterator[BulkDocument | Rejected]:
    """The document in a line of JSON, if the line is not blank."""
    try:
        line = data.decode("utf-8-sig")
        if not line.strip():
            return
        record = json.loads(line)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8: {error.reason} at byte {error.start} of the line"
        yield Rejected(id=place, place=place, reason=reason)
    except (ValueError, RecursionError) as error:
        yield Rejected(id=place, place=place, reason=f"not JSON: {error}")
    else:
        if isinstance(record, dict):
            yield _of_record(record, place)
        else:
            reason = f"a JSON {type(record).__name__} instead of an object"
            yield Rejected(id=place, place=place, reason=reason)


def _of_record(record: Mapping[str, object], place: str) -> BulkDocument | Rejected:
    """The fields ``text`` and, if it is there, ``id``."""
    text, given = record.get("text"), record.get("id")
    name = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else place
    name = name if name and name.encode(errors="replace").decode() == name else place
    if not isinstance(text, str):
        what = f"text is a {type(text).__name__}" if text is not None else "no field 'text'"
        return Rejected(id=name, place=place, reason=what)
    if not text.strip():
        return Rejected(id=name, place=place, reason="the text is blank")
    return BulkDocument(id=name, place=place, text=text)


def reason_of(error: Exception) -> str:
    """Why a document was rejected, on one line."""
    if isinstance(error, IcaeError):
        return error.message if error.got is None else f"{error.message} ({error.got})"
    return " ".join(f"{type(error).__name__}: {error}".split())
