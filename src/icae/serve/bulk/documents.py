"""The documents of a bulk run, cut into blocks that any process can read by itself.

A block names places in files, no text. Blocks depend on the files and the block size alone,
so a run that goes on later, or elsewhere, has the same ones.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from icae.data.documents import read_document
from icae.data.rows import COMPRESSIONS, open_text, read_row_range, row_count
from icae.errors import InputError

Kind = Literal["lines", "packed-lines", "rows", "file"]

DOCUMENT_SUFFIXES = (".txt", ".md", ".markdown", ".html", ".htm", ".xhtml", ".pdf")
_KINDS = (
    f".jsonl (plain or under {', '.join(COMPRESSIONS)}), .parquet, {', '.join(DOCUMENT_SUFFIXES)}"
)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive documents of one file.

    Attributes:
        path: The file.
        name: How places in it are named: its path below the input.
        kind: ``lines`` of JSON, ``packed-lines`` of a compressed file, ``rows`` of Parquet,
            or the ``file`` itself.
        first: First line or row, from 0.
        count: How many.
        offset: Byte at which the first line starts.
    """

    path: str
    name: str
    kind: Kind
    first: int = 0
    count: int = 1
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Block:
    """Documents that are compressed together, and written or lost together.

    Attributes:
        index: Number of the block, from 0.
        pieces: Where they are.
    """

    index: int
    pieces: tuple[Piece, ...]

    @property
    def documents(self) -> int:
        """Places in it; blank lines count."""
        return sum(piece.count for piece in self.pieces)


@dataclass(frozen=True, kw_only=True)
class BulkDocument:
    """One document.

    Attributes:
        id: Its ``id`` in the input, else its place.
        place: File, and line or row from 1, such as ``notes.jsonl:7``.
        text: What it says.
    """

    id: str
    place: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A document that cannot be compressed.

    Attributes:
        id: Its ``id`` in the input, else its place.
        place: File, and line or row from 1.
        reason: Why.
    """

    id: str
    place: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class BlockText:
    """What a block holds, read."""

    documents: list[BulkDocument] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def list_files(inputs: Sequence[Path]) -> list[tuple[Path, str]]:
    """The files of a bulk run, in order, each with its name.

    Args:
        inputs: Files, and folders that stand for the documents in them and below.

    Raises:
        InputError: If one is missing, of another type, or a folder without documents.
    """
    files: list[tuple[Path, str]] = []
    for path in inputs:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_input(file, path))
            if not inside:
                raise InputError("The folder holds no document.", got=str(path), expected=_KINDS)
            files += [(file, file.relative_to(path).as_posix()) for file in inside]
        elif not path.exists():
            raise InputError("The input is missing.", got=str(path), expected="a file or folder")
        elif _kind(path) is None:
            raise InputError("That type of file is not known.", got=str(path), expected=_KINDS)
        else:
            files.append((path, path.name))
    return files


def _is_input(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden and _kind(file) is not None


def _kind(path: Path) -> Kind | None:
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return "lines"
    if suffix in COMPRESSIONS and path.with_suffix("").suffix.lower() == ".jsonl":
        return "packed-lines"
    if suffix == ".parquet":
        return "rows"
    return "file" if suffix in DOCUMENT_SUFFIXES else None


def cut_blocks(files: Iterable[tuple[Path, str]], *, size: int) -> list[Block]:
    """Cut the documents of files into blocks, in order.

    Args:
        files: From `list_files`.
        size: Documents of a block.

    Raises:
        InputError: If a file cannot be read at all.
    """
    blocks: list[Block] = []
    places = itertools.chain.from_iterable(
        _PLACES[_kind_of(path)](path, name) for path, name in files
    )
    while taken := list(itertools.islice(places, size)):
        blocks.append(Block(index=len(blocks), pieces=tuple(_joined(taken))))
    return blocks


def _kind_of(path: Path) -> Kind:
    kind = _kind(path)
    assert kind is not None
    return kind


def _joined(places: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbouring places of one file as one piece."""
    for _, group in itertools.groupby(places, key=lambda piece: (piece.path, piece.kind)):
        own = list(group)
        yield Piece(
            path=own[0].path,
            name=own[0].name,
            kind=own[0].kind,
            first=own[0].first,
            count=len(own),
            offset=own[0].offset,
        )


def _line_places(path: Path, name: str) -> Iterator[Piece]:
    offset = 0
    with _opened(path) as stream:
        for row, line in enumerate(stream):
            yield Piece(path=str(path), name=name, kind="lines", first=row, offset=offset)
            offset += len(line)


def _packed_places(path: Path, name: str) -> Iterator[Piece]:
    with open_text(path) as stream:
        for row, _ in enumerate(stream):
            yield Piece(path=str(path), name=name, kind="packed-lines", first=row)


def _row_places(path: Path, name: str) -> Iterator[Piece]:
    for row in range(row_count(path)):
        yield Piece(path=str(path), name=name, kind="rows", first=row)


def _file_places(path: Path, name: str) -> Iterator[Piece]:
    yield Piece(path=str(path), name=name, kind="file")


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read.", got=error.strerror) from error


def read_block(block: Block) -> BlockText:
    """Read the documents of a block; those that cannot be read are rejected with the reason.

    Args:
        block: The block.

    Raises:
        InputError: If a file that was there cannot be opened any more.
    """
    read = BlockText()
    for piece in block.pieces:
        _READERS[piece.kind](piece, read)
    return read


def _read_lines(piece: Piece, read: BlockText) -> None:
    with _opened(Path(piece.path)) as stream:
        stream.seek(piece.offset)
        for row, line in enumerate(itertools.islice(stream, piece.count), start=piece.first + 1):
            place = f"{piece.name}:{row}"
            try:
                _take_line(line.decode("utf-8-sig"), place, read)
            except UnicodeDecodeError as error:
                _reject(read, place, f"not UTF-8: {error.reason} at byte {error.start} of the line")


def _read_packed_lines(piece: Piece, read: BlockText) -> None:
    with open_text(Path(piece.path)) as stream:
        lines = itertools.islice(stream, piece.first, piece.first + piece.count)
        for row, line in enumerate(lines, start=piece.first + 1):
            _take_line(line, f"{piece.name}:{row}", read)


def _take_line(line: str, place: str, read: BlockText) -> None:
    if not line.strip():
        return
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        _reject(read, place, f"not JSON: {error}")
        return
    if not isinstance(record, dict):
        _reject(read, place, f"a JSON {type(record).__name__} instead of an object")
        return
    _take_record(record, place, read)


def _read_rows(piece: Piece, read: BlockText) -> None:
    rows = read_row_range(Path(piece.path), piece.first, piece.count, columns=("id", "text"))
    for row, record in enumerate(rows, start=piece.first + 1):
        _take_record(record, f"{piece.name}:{row}", read)


def _read_file(piece: Piece, read: BlockText) -> None:
    try:
        text = read_document(piece.path).text
    except InputError as error:
        _reject(read, piece.name, _one_line(error))
        return
    read.documents.append(BulkDocument(id=piece.name, place=piece.name, text=text))


def _take_record(record: Mapping[str, Any], place: str, read: BlockText) -> None:
    """The fields ``text`` and, if it is there, ``id``."""
    text, given = record.get("text"), record.get("id")
    name = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else place
    name = name if name and name.encode(errors="replace").decode() == name else place
    if not isinstance(text, str):
        what = f"text is a {type(text).__name__}" if text is not None else "no field 'text'"
        read.rejected.append(Rejected(id=name, place=place, reason=what))
    elif not text.strip():
        read.rejected.append(Rejected(id=name, place=place, reason="the text is blank"))
    else:
        read.documents.append(BulkDocument(id=name, place=place, text=text))


def _reject(read: BlockText, place: str, reason: str) -> None:
    read.rejected.append(Rejected(id=place, place=place, reason=reason))


def _one_line(error: InputError) -> str:
    return error.message if error.got is None else f"{error.message} ({error.got})"


_PLACES: Mapping[Kind, Callable[[Path, str], Iterator[Piece]]] = {
    "lines": _line_places,
    "packed-lines": _packed_places,
    "rows": _row_places,
    "file": _file_places,
}
_READERS: Mapping[Kind, Callable[[Piece, BlockText], None]] = {
    "lines": _read_lines,
    "packed-lines": _read_packed_lines,
    "rows": _read_rows,
    "file": _read_file,
}
