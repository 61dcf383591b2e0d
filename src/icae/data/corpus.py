"""Text corpora as streams of documents: files and Hugging Face datasets.

Files are .txt, .md and .jsonl, plain or compressed, and .parquet; a dataset is written
``hf:owner/name`` (see `parse_dataset`) and needs the package datasets (the ``data`` extra).
Nothing is held in memory but the document being read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from icae.config.extras import import_extra
from icae.data.rows import (
    COMPRESSIONS,
    open_text,
    read_json_lines,
    read_text_columns,
    text_field,
)
from icae.errors import InputError

DATASET_PREFIX = "hf:"

_TEXT_SUFFIXES = (".txt", ".md")
_KINDS = "a .parquet file, or a .txt, .md or .jsonl file, plain or under .xz, .gz or .zst"
_DATASET_FORMS = "hf:OWNER/NAME[@REVISION][:CONFIG][:SPLIT] or hf:/FOLDER[:SPLIT]"
_FOLDER = re.compile(r"hf:(?P<name>[/.~][^:]*)(?::(?P<split>[^:]*))?")
_ON_HUB = re.compile(
    r"hf:(?P<name>[^@:/.~][^@:]*)(?:@(?P<revision>[^:]+))?"
    r"(?::(?P<config>[^:]*))?(?::(?P<split>[^:]*))?"
)


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


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Which dataset, written ``hf:...``.

    Attributes:
        name: Dataset on the hub (``owner/name``) or folder written by ``save_to_disk``.
        local: Whether it is a folder.
        revision: Commit, tag or branch on the hub, or None for the newest.
        config: Configuration, or None for the only one.
        split: Split to read.
    """

    name: str
    local: bool
    revision: str | None = None
    config: str | None = None
    split: str = "train"


def read_corpus(
    paths: Sequence[Path | str], *, limit_documents: int | None = None
) -> Iterator[CorpusDocument]:
    """Stream the documents of files, folders and datasets, in the order given.

    A .txt or .md file is one document; each line of a .jsonl file is one, with the field
    ``text`` and optionally ``title``; other fields are ignored. So is each row of a .parquet
    file and of a dataset. A folder stands for the corpus files in it and below, by name; its
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


def list_corpus(paths: Sequence[Path | str]) -> list[Path | str]:
    """The corpus files (as `Path`) and datasets (as text) that paths stand for, in order.

    Raises:
        InputError: As `read_corpus` at its first step.
    """
    found: list[Path | str] = []
    for path in paths:
        if is_dataset(path):
            parse_dataset(path)
            found.append(str(path))
        else:
            found.extend(_corpus_files(Path(path)))
    return found


def read_source(source: Path | str) -> Iterator[CorpusDocument]:
    """Stream the documents of one file or dataset of `list_corpus`; raises as `read_corpus`."""
    if is_dataset(source):
        spec = parse_dataset(source)
        name, rows = Path(spec.name).name, _dataset_rows(spec)
    else:
        name, rows = _bare(Path(source)).stem, _file_rows(Path(source))
    for text, title in rows:
        if text.strip():
            yield CorpusDocument(text=text, source=name, title=title)


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


def is_dataset(path: Path | str) -> bool:
    """Whether a corpus path names a dataset (``hf:...``) and not a file."""
    return str(path).startswith(DATASET_PREFIX)


def parse_dataset(spec: Path | str) -> DatasetSpec:
    """Read ``hf:owner/name[@revision][:config][:split]``, or ``hf:/folder[:split]``.

    A local folder starts with ``/``, ``.`` or ``~``. A part may be empty, as the configuration
    in ``hf:owner/name::test``; the split is ``train`` if none is named.

    Raises:
        InputError: If it has another form.
    """
    text = str(spec)
    folder, hub = _FOLDER.fullmatch(text), _ON_HUB.fullmatch(text)
    found = folder or hub
    if found is None:
        raise InputError("That is not a dataset.", got=text, expected=_DATASET_FORMS)
    given = {name: part for name, part in found.groupdict().items() if part}
    if folder:
        given["name"] = str(Path(given["name"]).expanduser())
    return DatasetSpec(local=folder is not None, **given)


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


def _dataset_rows(spec: DatasetSpec) -> Iterator[tuple[str, str | None]]:
    datasets = import_extra("datasets", purpose="A Hugging Face dataset", extra="data")
    try:
        for row in _open_dataset(datasets, spec):
            text, title = row.get("text", ...), row.get("title")
            if text is None:
                continue
            if not isinstance(text, str):
                raise _refused(spec, f"fields {', '.join(row)}", "a field 'text' with text")
            yield text, title if isinstance(title, str) else None
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        got = " ".join(str(error).split())[:200] or type(error).__name__
        raise _refused(spec, got, _DATASET_FORMS) from error


def _open_dataset(datasets: Any, spec: DatasetSpec) -> Any:
    """Rows of a dataset: one of the hub is streamed, a folder memory-mapped."""
    if not spec.local:
        return datasets.load_dataset(
            spec.name, spec.config, split=spec.split, revision=spec.revision, streaming=True
        )
    if not Path(spec.name).is_dir():
        raise FileNotFoundError(f"no folder {spec.name}")
    found = datasets.load_from_disk(spec.name)
    if not isinstance(found, datasets.DatasetDict):
        return found
    if spec.split not in found:
        raise _refused(spec, f"splits {', '.join(found)}", f"a split {spec.split!r}")
    return found[spec.split]


def _refused(spec: DatasetSpec, got: str, expected: str) -> InputError:
    return InputError(
        f"The dataset {spec.name} cannot be read.",
        got=got,
        expected=expected,
        fix="check name, configuration and split; the hub needs a network connection",
    )


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
