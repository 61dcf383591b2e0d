"""Answers that were written before, read back to be judged: from `icae eval qa` or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icae.data.rows import read_json_lines, text_field
from icae.data.triplets import read_triplets
from icae.errors import InputError
from icae.evals.compare import read_result
from icae.evals.metadata import file_hash


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A question and an answer to it.

    Attributes:
        dataset: Where the question is from.
        question: What was asked.
        reference: The reference answer; empty if there is none.
        answer: What was answered.
        context: The text that it is about; empty if it is not known.
    """

    dataset: str
    question: str
    reference: str
    answer: str
    context: str = ""


@dataclass(frozen=True, kw_only=True)
class AnswerSet:
    """The answers of one condition.

    Attributes:
        name: What it is called in tables.
        answers: The answers.
        record: File, hash and, of a result, what made it.
    """

    name: str
    answers: tuple[Answered, ...]
    record: Mapping[str, Any]


def read_answers(path: Path, *, reads: str | None, ratio: float | None) -> AnswerSet:
    """Read the answers of one condition.

    Args:
        path: A result of `icae eval qa` (.json), or JSON lines (.jsonl, also compressed) with
            ``question``, ``answer`` and optionally ``reference``, ``context``, ``dataset``.
        reads: Of a result: whose answers, as in its column "reads".
        ratio: Of a result: the compression ratio; None takes the only one.

    Raises:
        InputError: If the file cannot be read, or does not hold exactly one such condition.
    """
    if path.suffix == ".json":
        return _of_result(path, reads=reads or "memory", ratio=ratio)
    answers = tuple(
        _of_line(record, path=path, number=number) for number, record in read_json_lines(path)
    )
    if not answers:
        raise InputError("The file holds no answer.", got=str(path), expected="JSON lines")
    record = {"file": path.name, "sha256": file_hash(path)}
    return AnswerSet(name=path.name.partition(".jsonl")[0], answers=answers, record=record)


def _of_line(record: Mapping[str, Any], *, path: Path, number: int) -> Answered:
    values = {"reference": "", "context": "", "dataset": path.name.partition(".jsonl")[0], **record}
    fields = ("question", "answer", "reference", "context", "dataset")
    return Answered(**{key: text_field(values, key, path=path, number=number) for key in fields})


def _of_result(path: Path, *, reads: str, ratio: float | None) -> AnswerSet:
    result = read_result(path)
    rows = [row for row in result["rows"] if isinstance(row.get("per_question"), dict)]
    if not rows:
        raise InputError(
            f"{path} holds no answers.",
            got=f"a result of {result['experiment']}",
            expected="a result of icae eval qa, or answers as JSON lines",
        )
    own = [row for row in rows if row.get("kind") == reads]
    ratios = sorted({row["ratio"] for row in own if row.get("ratio") is not None})
    if ratio is None and len(ratios) > 1:
        raise InputError(
            f"The answers of {reads!r} were written at several ratios.",
            got=", ".join(f"{r:g}" for r in ratios),
            fix="Choose one with --ratio.",
        )
    if ratios and ratio is not None:
        own = [row for row in own if row["ratio"] == ratio]
    if not own:
        at = f" at ratio {ratio:g}" if ratio is not None and ratios else ""
        raise InputError(
            f"{path} holds no answers of {reads!r}{at}.",
            expected="one of " + ", ".join(sorted({repr(row["kind"]) for row in rows})),
        )
    answers = [answer for row in own for answer in _of_row(row)]
    name = reads + (f" {own[0]['ratio']:g}x" if ratios else "")
    record = {"file": path.name, "sha256": file_hash(path), "reads": reads, "ratio": ratio}
    made = {key: result.get(key) for key in ("adapter", "base", "commit", "settings", "seed")}
    return AnswerSet(name=name, answers=tuple(answers), record=record | made)


def _of_row(row: Mapping[str, Any]) -> list[Answered]:
    single = row["per_question"]
    return [
        Answered(dataset=str(row.get("dataset", "")), question=q, reference=r, answer=a)
        for q, r, a in zip(single["prompt"], single["reference"], single["answer"], strict=True)
    ]


def paired(
    first: AnswerSet, second: AnswerSet, contexts: Mapping[tuple[str, str], str]
) -> tuple[list[tuple[Answered, Answered]], int]:
    """Answers to the same questions, and how many have no partner.

    Args:
        first: Answers of one condition.
        second: Answers of another.
        contexts: (question, reference) -> the text; see `read_contexts`.

    Raises:
        InputError: If no question is in both.
    """
    waiting: dict[tuple[str, str, str], list[Answered]] = {}
    for answered in second.answers:
        waiting.setdefault(_key(answered), []).append(answered)
    pairs = []
    for answered in first.answers:
        partners = waiting.get(_key(answered))
        if partners:
            context = answered.context or contexts.get((answered.question, answered.reference), "")
            known = Answered(**{**vars(answered), "context": context})
            pairs.append((known, partners.pop(0)))
    if not pairs:
        raise InputError(
            "The two conditions answer no question in common.",
            got=f"{len(first.answers)} and {len(second.answers)} answers",
            expected="the same questions, references and data set names",
        )
    return pairs, len(first.answers) + len(second.answers) - 2 * len(pairs)


def _key(answered: Answered) -> tuple[str, str, str]:
    return (answered.dataset, answered.question, answered.reference)


def read_contexts(paths: Sequence[Path]) -> dict[tuple[str, str], str]:
    """The texts that questions are about, to show them to the judge.

    Args:
        paths: Triplet files.

    Returns:
        (question, first reference) -> context.

    Raises:
        InputError: If a file cannot be read.
    """
    return {(t.prompt, t.answers[0]): t.context for path in paths for t in read_triplets(path)}
