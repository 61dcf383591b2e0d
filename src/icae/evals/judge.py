"""Win, lose or tie between two sets of answers, judged in both orders. Pure: no network.

Source: Ge et al. 2024, section 3.3 (answers judged by GPT-4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from icae.evals.experiment import Column, Row, plain
from icae.evals.judge_client import Said
from icae.evals.judge_prompt import Asked, Verdict, parse
from icae.evals.metrics import mean_estimate

OUTCOMES = ("win", "lose", "tie", "order decides")
"""What a question that was judged in both orders comes to; see `outcome`."""

COLUMNS = (
    Column(title="data set", key="dataset"),
    Column(title="first", key="first"),
    Column(title="second", key="second"),
    Column(title="questions", key="questions"),
    Column(title="judged", key="judged"),
    Column(title="win", key="win", digits=3),
    Column(title="lose", key="lose", digits=3),
    Column(title="tie", key="tie", digits=3),
    Column(title="order decides", key="order_decides", digits=3),
    Column(title="win - lose", key="margin", digits=3),
    Column(title="shown first preferred", key="first_preferred", digits=3),
    Column(title="unparsed", key="unparsed"),
    Column(title="no reply", key="failed"),
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
class Judged:
    """One question after both orders.

    Attributes:
        outcome: One of `OUTCOMES`, ``unparsed`` or ``failed``.
        verdicts: What each order said: a verdict, or None.
        problems: Why a reply never came, in words.
    """

    outcome: str
    verdicts: tuple[Verdict | None, Verdict | None]
    problems: tuple[str, ...] = ()


def both_orders(asked: Sequence[Asked]) -> list[Asked]:
    """Every question in its order and then swapped: what is to be judged."""
    return [order for one in asked for order in (one, one.swapped())]


def read_verdicts(said: Sequence[Said]) -> list[Judged]:
    """What the judge's replies to `both_orders` come to.

    Args:
        said: Two replies for each question.
    """
    result = []
    for straight, swapped in zip(said[::2], said[1::2], strict=True):
        replies = (straight, swapped)
        verdicts = tuple(None if s.reply is None else parse(s.reply) for s in replies)
        problems = tuple(s.problem for s in replies if s.reply is None)
        name = "failed" if problems else outcome(verdicts[0], verdicts[1])
        result.append(Judged(outcome=name, verdicts=(verdicts[0], verdicts[1]), problems=problems))
    return result


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


def figures(judged: Sequence[Judged], *, seed: int) -> Row:
    """Shares and counts of one comparison.

    Args:
        judged: Every question.
        seed: Seed of the bootstrap.

    Returns:
        Shares with their intervals, None where no question was judged.
    """
    counts = Counter(one.outcome for one in judged)
    decided = [one.outcome for one in judged if one.outcome in OUTCOMES]
    row: Row = {
        "questions": len(judged),
        "judged": len(decided),
        "unparsed": counts["unparsed"],
        "failed": counts["failed"],
    }
    for name in OUTCOMES:
        values = [float(one == name) for one in decided]
        row[name.replace(" ", "_")] = plain(mean_estimate(values, seed=seed)) if values else None
    margins = [float(one == "win") - float(one == "lose") for one in decided]
    row["margin"] = plain(mean_estimate(margins, seed=seed)) if margins else None
    choices = [
        float(verdict == "first")
        for one in judged
        for verdict in one.verdicts
        if verdict in ("first", "second")
    ]
    row["first_preferred"] = plain(mean_estimate(choices, seed=seed)) if choices else None
    return row
