"""Win, lose or tie between two sets of answers, told by an LLM that sees them in both orders.

A change of the wording needs a new `VERSION`: verdicts of different prompts do not compare.

Source: Ge et al. 2024, section 3.3 (answers judged by GPT-4).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from icae.data.rows import file_hash
from icae.data.triplets.journal import open_journal
from icae.data.triplets.records import Reply
from icae.data.triplets.requests import Message
from icae.data.triplets.service import ChatService
from icae.errors import InputError
from icae.evals.bootstrap import Figure, mean_figure
from icae.evals.compare import read_result
from icae.evals.metadata import result_head
from icae.evals.plots import StackedBars, require_drawing
from icae.evals.results import Finished, ResultFiles, unmeasured
from icae.evals.tables import Row, Table, columns_of

VERSION = "2"
"""Version of `PROMPT` and of how replies are read."""

SYSTEM = (
    "You compare two answers to the same question. Judge how correct and complete they are, "
    "not how long or how fluent. Do not let the order of the answers sway you."
)

PROMPT = """\
Question:
{question}

Reference answer:
{reference}

Answer A:
{first}

Answer B:
{second}

Which answer is better? Give one sentence of reasons. Then end with a line that is exactly one \
of these:
VERDICT: A
VERDICT: B
VERDICT: TIE"""

_VERDICT = re.compile(r"^[\s*_#>`]*verdict\s*[:=]?[\s*_`]*(a|b|tie)[\s*_`.]*$", re.I | re.M)

POINTS = {"a": 1, "b": -1, "tie": 0}
"""What a verdict gives the answer that was shown first."""

OUTCOMES = ("win", "lose", "tie", "order decides")
"""What a question that was judged in both orders comes to; see `outcome`."""

REPLIES = "judge-replies.jsonl"
"""Name of the file of replies, beside the result."""

TITLE = "Answers judged in both orders"
COLUMNS = columns_of(
    "dataset first second questions judged win lose tie order_decides unparsed failed"
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
)


class Answered(NamedTuple):
    """A question of a data set, its reference and an answer to it."""

    dataset: str
    question: str
    reference: str
    answer: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What two answers to one question share."""
        return self[:3]


@dataclass(frozen=True, kw_only=True)
class AnswerSet:
    """The answers of one condition.

    Attributes:
        name: What it is called in tables.
        answers: The answers.
        record: File, hash, and what made it.
    """

    name: str
    answers: tuple[Answered, ...]
    record: Mapping[str, Any]


def messages(asked: Answered, first: str, second: str) -> list[Message]:
    """The chat messages that ask for a verdict: `first` is shown as A, `second` as B."""
    text = PROMPT.format(
        question=asked.question,
        reference=asked.reference or "(none)",
        first=first.strip() or "(empty)",
        second=second.strip() or "(empty)",
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def parse(reply: str) -> int | None:
    """The points (1, 0, -1) that a reply gives the answer shown first.

    Returns:
        Those of the lines that are a verdict, Markdown around them set aside; None if no line
        is one, or two lines say different things.
    """
    found = {match.lower() for match in _VERDICT.findall(reply)}
    return POINTS[found.pop()] if len(found) == 1 else None


def outcome(straight: int | None, swapped: int | None) -> str:
    """What two verdicts come to: one of `OUTCOMES`, or ``unparsed`` if either is none.

    Args:
        straight: Points with the first answer shown first.
        swapped: Points with the second answer shown first.
    """
    if straight is None or swapped is None:
        return "unparsed"
    if straight != swapped:
        return "win" if straight > swapped else "lose"
    return "tie" if straight == 0 else "order decides"


def judge_answers(
    first: AnswerSet,
    second: AnswerSet,
    service: ChatService,
    *,
    files: ResultFiles,
    command: str,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Finished:
    """Judge every question both answer, and write a JSON file, Markdown and a plot.

    Replies are kept as they come, in `REPLIES`, so an equal run asks only for what is missing.

    Args:
        first: The answers that win or lose.
        second: The answers they are set against.
        service: The judge.
        files: Where the result goes.
        command: The command line.
        seed: Seed of the bootstrap.
        on_progress: Called with (requests done, requests in all).

    Raises:
        InputError: If no question is in both, or a file cannot be read or written.
        ServiceError: If the judge cannot be used.
        MissingDependencyError: If the `[eval]` or the `[judge]` extra is not installed.
    """
    require_drawing()
    pairs, alone = paired(first, second)
    asked = [
        messages(one, *order)
        for one, other in pairs
        for order in ((one.answer, other.answer), (other.answer, one.answer))
    ]
    said, problems = _replies(asked, service, files.folder / REPLIES, on_progress)
    judge = {"model": service.model, "url": service.url, "prompt": VERSION}
    made = {"judge": judge, "first": dict(first.record), "second": dict(second.record)}
    settings = {"max_tokens": service.max_tokens}
    head = {
        **result_head(files.name, TITLE, made, seed, settings, "questions"),
        "without_partner": alone,
        "problems": problems,
        "command": command,
    }
    rows = _rows([one for one, _ in pairs], said, names=(first.name, second.name), seed=seed)
    payload = {**unmeasured(head), "complete": True, "rows": rows}
    return files.finish(payload, [Table(rows, COLUMNS)], NOTES, PLOTS)


def _replies(
    asked: Sequence[Sequence[Message]],
    service: ChatService,
    path: Path,
    on_progress: Callable[[int, int], None],
) -> tuple[list[str | None], list[str]]:
    """What the judge says to each of some messages, None if nothing came, and the reasons."""
    names = [_name(service, one) for one in asked]
    wanted = dict(zip(names, asked, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_journal(path) as journal:

        def record(reply: Reply) -> None:
            journal.append(reply)
            on_progress(len(wanted.keys() & journal.replies.keys()), len(wanted))

        missing = {name: one for name, one in wanted.items() if name not in journal.replies}
        failures = service.answer(missing, record)
        found = {name: replies[0].text for name, replies in journal.replies.items()}
    return [found.get(name) for name in names], sorted(set(failures.values()))[:20]


def _name(service: ChatService, asked: Sequence[Message]) -> str:
    """Hash of a request, by which its reply is kept."""
    text = json.dumps([VERSION, service.model, service.url, list(asked)])
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _rows(
    asked: Sequence[Answered], said: Sequence[str | None], *, names: tuple[str, str], seed: int
) -> list[Row]:
    """One row for each data set: shares with their intervals, None where nothing was judged."""

    def share(values: Sequence[float]) -> Figure | None:
        return mean_figure(values, seed=seed) if values else None

    pairs = list(zip(asked, zip(said[::2], said[1::2], strict=True), strict=True))
    rows: list[Row] = []
    for name in dict.fromkeys(one.dataset for one in asked):
        replies = [both for one, both in pairs if one.dataset == name]
        outcomes = [
            "failed" if None in both else outcome(*(parse(reply or "") for reply in both))
            for both in replies
        ]
        counts, decided = Counter(outcomes), [one for one in outcomes if one in OUTCOMES]
        rows.append(
            {
                "dataset": name,
                "series": f"{name}: {names[0]} / {names[1]}",
                "first": names[0],
                "second": names[1],
                "questions": len(outcomes),
                "judged": len(decided),
                "unparsed": counts["unparsed"],
                "failed": counts["failed"],
                **{
                    result.replace(" ", "_"): share([float(one == result) for one in decided])
                    for result in OUTCOMES
                },
                "outcomes": outcomes,
            }
        )
    return rows


def read_answers(path: Path, *, reads: str, ratio: float | None) -> AnswerSet:
    """Read the answers of one condition.

    Args:
        path: A result of `icae eval qa` (.json).
        reads: Whose answers, as in its column "reads".
        ratio: The compression ratio; None takes the only one.

    Raises:
        InputError: If the file cannot be read, or does not hold exactly one such condition.
    """
    result = read_result(path)
    rows = [row for row in result["rows"] if isinstance(row.get("per_question"), dict)]
    if not rows:
        raise InputError(
            f"{path} holds no answers.",
            got=f"a result of {result['experiment']}",
            expected="a result of icae eval qa",
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
    answers = [
        Answered(dataset=str(row.get("dataset", "")), question=q, reference=r, answer=a)
        for row in own
        for q, r, a in zip(*map(row["per_question"].get, _SINGLE), strict=True)
    ]
    name = reads + (f" {own[0]['ratio']:g}x" if ratios else "")
    record = {"file": path.name, "sha256": file_hash(path), "reads": reads, "ratio": ratio}
    made = {key: result.get(key) for key in ("adapter", "base", "commit", "settings", "seed")}
    return AnswerSet(name=name, answers=tuple(answers), record=record | made)


_SINGLE = ("prompt", "reference", "answer")


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
