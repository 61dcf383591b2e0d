"""Win, lose or tie between two sets of answers, told by an LLM that sees them in both orders.

A change of the wording needs a new `VERSION`: verdicts of different prompts do not compare.

Source: Ge et al. 2024, section 3.3 (answers judged by GPT-4).
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from icae.data.rows import read_json_lines, text_field
from icae.data.triplets import read_triplets
from icae.errors import InputError
from icae.evals.bootstrap import Figure, mean_figure
from icae.evals.compare import read_result
from icae.evals.judge_service import JudgeService, Message, Replies, Said
from icae.evals.metadata import file_hash, result_head
from icae.evals.plots import StackedBars, require_drawing
from icae.evals.questions import set_name
from icae.evals.results import Finished, ResultFiles, unmeasured
from icae.evals.tables import Row, Table, columns_of

VERSION = "1"
"""Version of `PROMPT` and of how replies are read."""

SYSTEM = (
    "You compare two answers to the same question. Judge how correct and complete they are, "
    "not how long or how fluent. Do not let the order of the answers sway you."
)

PROMPT = """\
{context}Question:
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


class Answered(NamedTuple):
    """A question and an answer to it; what is not known is empty."""

    question: str
    answer: str
    reference: str = ""
    context: str = ""
    dataset: str = "answers"

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


def messages(asked: Answered, context: str, first: str, second: str) -> list[Message]:
    """The chat messages that ask for a verdict.

    Args:
        asked: Holds question and reference.
        context: The text that the question is about; empty if it is not shown.
        first: The answer shown as A.
        second: The answer shown as B.
    """
    text = PROMPT.format(
        context=f"Text:\n{context}\n\n" if context else "",
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
    service: JudgeService,
    *,
    files: ResultFiles,
    cache: Path,
    command: str,
    contexts: Mapping[tuple[str, str], str] | None = None,
    seed: int = 0,
    together: int = 4,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Finished:
    """Judge every question both answer, and write a JSON file, Markdown and a plot.

    Replies are kept as they come, so an equal run asks only for what is missing.

    Args:
        first: The answers that win or lose.
        second: The answers they are set against.
        service: The judge.
        files: Where the result goes.
        cache: File of its replies.
        command: The command line.
        contexts: (question, reference) -> the text that the judge is shown, if known.
        seed: Seed of the bootstrap.
        together: Requests in flight.
        on_progress: Called with (requests done, requests in all).

    Raises:
        InputError: If no question is in both, or a file cannot be read or written.
        MissingDependencyError: If the `[eval]` or the `[judge]` extra is not installed.
    """
    require_drawing()
    pairs, alone = paired(first, second)
    wanted = [asked for pair in pairs for asked in _both_orders(*pair, contexts or {})]
    replies = Replies(service, path=cache, version=VERSION)
    said = replies.to(wanted, together=together, on_progress=on_progress)
    judge = {"model": service.model, "url": service.url, "prompt": VERSION}
    made = {"judge": judge, "first": dict(first.record), "second": dict(second.record)}
    settings = {"max_tokens": service.max_tokens, "contexts_shown": bool(contexts)}
    head = {
        **result_head(files.name, TITLE, made, seed, settings, "questions"),
        "without_partner": alone,
        "problems": sorted({one.problem for one in said if one.reply is None})[:20],
        "command": command,
    }
    rows = _rows([one for one, _ in pairs], said, names=(first.name, second.name), seed=seed)
    payload = {**unmeasured(head), "complete": True, "rows": rows}
    return files.finish(payload, [Table(rows, COLUMNS)], NOTES, PLOTS)


def _both_orders(
    one: Answered, other: Answered, contexts: Mapping[tuple[str, str], str]
) -> list[list[Message]]:
    """What is asked of two answers to one question."""
    context = one.context or contexts.get((one.question, one.reference), "")
    orders = ((one.answer, other.answer), (other.answer, one.answer))
    return [messages(one, context, *order) for order in orders]


def _rows(
    asked: Sequence[Answered], said: Sequence[Said], *, names: tuple[str, str], seed: int
) -> list[Row]:
    """One row for each data set: shares with their intervals, None where nothing was judged."""

    def share(values: Sequence[float]) -> Figure | None:
        return mean_figure(values, seed=seed) if values else None

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
        preferred = [float(v > 0) for both in verdicts for v in both if v]
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
                "margin": share([float(d == "win") - float(d == "lose") for d in decided]),
                "first_preferred": share(preferred),
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
        field = functools.partial(text_field, Answered._field_defaults | dict(record))
        fields = {key: field(key, path=path, number=number) for key in Answered._fields}
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


def read_contexts(paths: Sequence[Path]) -> dict[tuple[str, str], str]:
    """The texts of triplet files, to show them to the judge: (question, reference) -> context.

    Raises:
        InputError: If a file cannot be read.
    """
    return {(t.prompt, t.answers[0]): t.context for path in paths for t in read_triplets(path)}
