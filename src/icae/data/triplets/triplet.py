"""Instruction data: (context, prompt, answer) triplets as JSON lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icae.data.rows import bad_line, read_json_lines, read_rows, text_field
from icae.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Triplet:
    """One question about one context.

    Attributes:
        context: The text to compress.
        prompt: What is asked about it.
        answers: Accepted answers, at least one; the first is the one to train on, the
            others are further references. No two are equal, though case may be all they
            differ in.
        dataset: Data set that it came from.
        id: Its id there; empty if the data set has none, and not always unique.
    """

    context: str
    prompt: str
    answers: tuple[str, ...]
    dataset: str
    id: str


def read_triplets(path: Path) -> Iterator[Triplet]:
    """Stream the triplets of a .jsonl file, plain or under .xz, .gz or .zst, or of a .parquet.

    Each line (or row) is an object with ``context``, ``prompt``, ``answer`` and optionally
    ``answers`` (a list of references), ``dataset`` (else the file stem) and ``id``.

    Raises:
        InputError: If the file cannot be read or holds no triplet, or a line lacks a field
            or has a blank one; the error names file and line.
        MissingDependencyError: If Parquet is to be read and pyarrow is not installed.
    """
    path = Path(path)
    stem = path.name.split(".jsonl")[0].removesuffix(".parquet")
    empty = True
    rows = read_rows(path) if path.suffix == ".parquet" else read_json_lines(path)
    for number, record in rows:
        empty = False
        yield _triplet(record, path=path, number=number, stem=stem)
    if empty:
        raise InputError("The file holds no triplet.", got=str(path), expected="JSON lines or rows")


def _triplet(record: Mapping[str, Any], *, path: Path, number: int, stem: str) -> Triplet:
    context, prompt, answer = (
        _filled(record, name, path=path, number=number) for name in ("context", "prompt", "answer")
    )
    others = record.get("answers", [])
    if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
        raise bad_line(path, number, f"answers is {others!r:.80}", "'answers' as a list of text")
    optional = {"dataset": stem, "id": "", **record}
    return Triplet(
        context=context,
        prompt=prompt,
        answers=tuple(dict.fromkeys([answer, *filter(str.strip, others)])),
        dataset=text_field(optional, "dataset", path=path, number=number),
        id=text_field(optional, "id", path=path, number=number),
    )


def _filled(record: Mapping[str, Any], name: str, *, path: Path, number: int) -> str:
    value = text_field(record, name, path=path, number=number)
    if not value.strip():
        raise bad_line(path, number, f"{name} is blank", f"a field {name!r} with text")
    return value
