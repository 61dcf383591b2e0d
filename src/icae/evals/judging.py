"""Win, lose or tie between two sets of answers, judged in both orders.

Source: Ge et al. 2024, section 3.3 (answers judged by GPT-4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icae
from icae.config.checkout import commit
from icae.data.rows import read_json_lines, text_field
from icae.data.triplets import read_triplets
from icae.errors import InputError
from icae.evals.bootstrap import LEVEL, RESAMPLES, Figure, mean_figure
from icae.evals.compare import read_result
from icae.evals.judge import (
    VERSION,
    CachedJudge,
    Judge,
    JudgeService,
    Said,
    Verdict,
    ask_all,
    messages,
    parse,
)
from icae.evals.metadata import file_hash
from icae.evals.plots import StackedBars, require_drawing
from icae.evals.questions import set_name
from icae.evals.results import SCHEMA, Finished, Result, ResultFiles
from icae.evals.tables import Row, Table, columns_of

OUTCOMES = ("win", "lose", "tie", "order decides")
"""What a question that was judged in both orders comes to; see `outcome`."""
TOGETHER = 32
"""Requests between two reports of progress, at least."""

TITLE = "Answers judged in both orders"
COLUMNS = columns_of(
    "dataset first second questions judged win lose tie order_decides margin "
    "first_preferred unparsed failed"
)
PLOTS = (
    StackedBars(
        keys={name.replace(" ", "_"): name for name in OUTCOMES},
        title="share of the judged questions",
    ),
)
NOTES = (
    "Each question is judged twice, with the answers in both orders. Win: the first answers are "
    "better in both orders, or in one with a tie in the other; lose: the reverse; tie: a tie "
    "twice; order decides: each order names another winner, so it is neither's.",
    "The shares are of the questions with a verdict in both orders (judged). A question of which "
    "a reply holds no verdict (unparsed) or never came (no reply) counts in no share; it is "
    "counted apart.",
    "Shown first preferred: of all verdicts that name a winner, the share that names the answer "
    "shown first; .5 is no bias, 1.0 a judge that always says A.",
)


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

    @property
    def key(self) -> tuple[str, str, str]:
        """What two answers to one question share."""
        return (self.dataset, self.question, self.reference)


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


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What is judged and by whom.

    Attributes:
        first: The answers that win or lose.
        second: The answers they are set against.
        contexts: (question, reference) -> the text that the judge is shown, if known.
        service: The judge.
        cache: File of its replies.
        seed: Seed of the bootstrap.
        together: Requests in flight.
        name: Name of the result files.
    """

    first: AnswerSet
    second: AnswerSet
    contexts: Mapping[tuple[str, str], str]
    service: JudgeService
    cache: Path
    seed: int = 0
    together: int = 4
    name: str = "judge"


def judge_answers(
    judging: Judging,
    judge: Judge,
    *,
    folder: Path,
    command: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Finished:
    """Judge every question both answer, and write a JSON file, Markdown and a plot.

    Replies are cached as they come, so an equal run asks only for what is missing.

    Args:
        judging: What is judged.
        judge: Who judges.
        folder: Where the files go.
        command: The command line, for the record.
        on_progress: Called with (requests done, requests in all).

    Raises:
        InputError: If no question is in both, or a file cannot be read or written.
        MissingDependencyError: If the `[eval]` extra is not installed.
    """
    require_drawing()
    pairs, alone = paired(judging.first, judging.second)
    wanted = []
    for first, second in pairs:
        context = first.context or judging.contexts.get((first.question, first.reference), "")
        for shown in ((first.answer, second.answer), (second.answer, first.answer)):
            wanted.append(messages(first.question, first.reference, context, *shown))
    service = judging.service
    cached = CachedJudge(judge, name=f"{service.model} {service.url}", path=judging.cache)
    said: list[Said] = []
    step = max(TOGETHER, judging.together)
    for start in range(0, len(wanted), step):
        said += ask_all(cached, wanted[start : start + step], together=judging.together)
        on_progress(len(said), len(wanted))
    rows = _rows(judging, [first for first, _ in pairs], said)
    problems = sorted({one.problem for one in said if one.reply is None})
    head = _head(judging) | {
        "without_partner": alone,
        "problems": problems[:20],
        "command": command,
    }
    result = Result(head=head, rows=tuple(rows), complete=True)
    files = ResultFiles(folder=folder, name=judging.name)
    return files.finish(result, [Table(rows=rows, columns=COLUMNS)], NOTES, PLOTS)


def _head(judging: Judging) -> dict[str, Any]:
    service = judging.service
    return {
        "schema": SCHEMA,
        "experiment": judging.name,
        "title": TITLE,
        "icae": icae.__version__,
        "commit": commit(),
        "judge": {"model": service.model, "url": service.url, "prompt": VERSION},
        "first": dict(judging.first.record),
        "second": dict(judging.second.record),
        "seed": judging.seed,
        "settings": {"max_tokens": service.max_tokens, "contexts_shown": bool(judging.contexts)},
        "intervals": f"{LEVEL:.0%} percentile bootstrap over questions, {RESAMPLES} resamples",
    }


def outcome(straight: Verdict | None, swapped: Verdict | None) -> str:
    """What two verdicts come to.

    Args:
        straight: With the first answer shown first; None if it cannot be read.
        swapped: With the second answer shown first.

    Returns:
        One of `OUTCOMES`, or ``unparsed`` if either cannot be read.
    """
    if straight is None or swapped is None:
        return "unparsed"
    points = {"first": 1, "second": -1, "tie": 0}
    score = points[straight] - points[swapped]
    if score:
        return "win" if score > 0 else "lose"
    return "tie" if straight == "tie" else "order decides"


def _rows(judging: Judging, asked: Sequence[Answered], said: Sequence[Said]) -> list[Row]:
    """One row for each data set: shares with their intervals, None where nothing was judged."""
    pairs = list(zip(asked, zip(said[::2], said[1::2], strict=True), strict=True))
    rows: list[Row] = []
    for name in dict.fromkeys(one.dataset for one in asked):
        replies = [both for one, both in pairs if one.dataset == name]
        verdicts = [[parse(s.reply or "") for s in both] for both in replies]
        outcomes = [
            "failed" if any(s.reply is None for s in both) else outcome(*found)
            for both, found in zip(replies, verdicts, strict=True)
        ]
        counts, decided = Counter(outcomes), [one for one in outcomes if one in OUTCOMES]
        winners = [v for both in verdicts for v in both if v in ("first", "second")]

        def share(values: Sequence[float]) -> Figure | None:
            return mean_figure(values, seed=judging.seed) if values else None

        rows.append(
            {
                "dataset": name,
                "series": f"{name}: {judging.first.name} / {judging.second.name}",
                "first": judging.first.name,
                "second": judging.second.name,
                "questions": len(outcomes),
                "judged": len(decided),
                "unparsed": counts["unparsed"],
                "failed": counts["failed"],
                **{
                    result.replace(" ", "_"): share([float(one == result) for one in decided])
                    for result in OUTCOMES
                },
                "margin": share([float(d == "win") - float(d == "lose") for d in decided]),
                "first_preferred": share([float(v == "first") for v in winners]),
                "outcomes": outcomes,
            }
        )
    return rows


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
    answers = []
    for number, record in read_json_lines(path):
        values = {"reference": "", "context": "", "dataset": "answers", **record}
        keys = ("question", "answer", "reference", "context", "dataset")
        fields = {key: text_field(values, key, path=path, number=number) for key in keys}
        answers.append(Answered(**fields))
    if not answers:
        raise InputError("The file holds no answer.", got=str(path), expected="JSON lines")
    record = {"file": path.name, "sha256": file_hash(path)}
    return AnswerSet(name=set_name(path), answers=tuple(answers), record=record)


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


def paired(first: AnswerSet, second: AnswerSet) -> tuple[list[tuple[Answered, Answered]], int]:
    """Answers to the same questions, and how many have no partner.

    Raises:
        InputError: If no question is in both.
    """
    waiting: dict[tuple[str, str, str], list[Answered]] = {}
    for answered in second.answers:
        waiting.setdefault(answered.key, []).append(answered)
    pairs = [(one, waiting[one.key].pop(0)) for one in first.answers if waiting.get(one.key)]
    if not pairs:
        raise InputError(
            "The two conditions answer no question in common.",
            got=f"{len(first.answers)} and {len(second.answers)} answers",
            expected="the same questions, references and data set names",
        )
    return pairs, len(first.answers) + len(second.answers) - 2 * len(pairs)


def read_contexts(paths: Sequence[Path]) -> dict[tuple[str, str], str]:
    """The texts that questions are about, to show them to the judge.

    Returns:
        (question, first reference) -> context.

    Raises:
        InputError: If a file cannot be read.
    """
    return {(t.prompt, t.answers[0]): t.context for path in paths for t in read_triplets(path)}
