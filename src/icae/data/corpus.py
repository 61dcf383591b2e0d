"""Text corpora as streams of documents.

Files are .txt, .md and .jsonl, plain or compressed, and .parquet.
Nothing is held in memory but the document being read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from icae.data.rows import (
    COMPRESSIONS,
    open_text,
    read_json_lines,
    read_text_columns,
    text_field,
)
from icae.errors import InputError

_TEXT_SUFFIXES = (".txt", ".md")
_KINDS = "a .parquet file, or a .txt, .md or .jsonl file, plain or under .xz, .gz or .zst"


@dataclass(frozen=True, kw_only=True)
class CorpusDocument:
    """One document of a corpus.

    Attributes:
        text: The whole text.
        source: Name of the corpus that it came from: the file stem, as in ``wikipedia-0``.
        title: Its title, if the corpus has one.
    """

    text: str
    source: str
    title: str | None = None


def read_corpus(
    paths: Sequence[Path | str], *, limit_documents: int | None = None
) -> Iterator[CorpusDocument]:
    """Stream the documents of files and folders, in the order given.

    A .txt or .md file is one document; each line of a .jsonl file is one, with the field
    ``text`` and optionally ``title``; other fields are ignored. So is each row of a .parquet
    file. A folder stands for the corpus files in it and below, by name; its
    other files, and hidden ones, are skipped, as are blank documents.

    Raises:
        InputError: At the first step, if a path is missing, a named file is of another type
            or a folder holds no corpus file; when it is reached, if a file cannot be read
            (with the line number in .jsonl).
        MissingDependencyError: When it is reached, if a file needs a package of the extra
            ``data`` that is not installed.
    """
    sources = list_corpus(paths)
    yield from islice((one for file in sources for one in read_source(file)), limit_documents)


def list_corpus(paths: Sequence[Path | str]) -> list[Path]:
    """The corpus files that files and folders stand for, in order.

    Raises:
        InputError: As `read_corpus` at its first step.
    """
    return [file for path in paths for file in _corpus_files(Path(path))]


def read_source(file: Path) -> Iterator[CorpusDocument]:
    """Stream the documents of one file of `list_corpus`; raises as `read_corpus`."""
    for text, title in _file_rows(file):
        if text.strip():
            yield CorpusDocument(text=text, source=_bare(file).stem, title=title)


def batched(
    documents: Iterable[CorpusDocument], *, most: int, characters: int
) -> Iterator[list[CorpusDocument]]:
    """Group documents in order; a group that is full by number or by size takes no further one."""
    group: list[CorpusDocument] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document.text)
        if len(group) >= most or size >= characters:
            yield group
            group, size = [], 0
    if group:
        yield group


def _file_rows(path: Path) -> Iterator[tuple[str, str | None]]:
    """Text and title of each document of a file."""
    kind = _bare(path).suffix
    if kind in _TEXT_SUFFIXES:
        with open_text(path) as stream:
            yield stream.read(), None
    elif kind == ".parquet":
        yield from read_text_columns(path)
    else:
        for number, record in read_json_lines(path):
            title = record.get("title")
            text = text_field(record, "text", path=path, number=number)
            yield text, title if isinstance(title, str) else None


def _bare(path: Path) -> Path:
    """The path without the suffix of its compression."""
    return path.with_suffix("") if path.suffix in COMPRESSIONS else path


def _is_corpus_file(path: Path) -> bool:
    return path.suffix == ".parquet" or _bare(path).suffix in (*_TEXT_SUFFIXES, ".jsonl")


def _corpus_files(path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and _is_corpus_file(file)
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if inside:
            return inside
        raise InputError("The folder holds no corpus file.", got=str(path), expected=_KINDS)
    if not path.exists():
        raise InputError("The corpus is missing.", got=str(path), expected="a file or folder")
    if not _is_corpus_file(path):
        raise InputError("That type of file is not a corpus.", got=str(path), expected=_KINDS)
    return [path]
