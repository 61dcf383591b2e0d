"""What a judge is asked and how its reply is read. Pure: no network, no files.

A change of the wording needs a new `VERSION`: verdicts of different prompts do not compare.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

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

Verdict = Literal["first", "second", "tie"]

_VERDICT = re.compile(r"^[\s*_#>`]*verdict\s*[:=]?[\s*_`]*(a|b|tie)[\s*_`.]*$", re.I | re.M)
_VERDICTS: dict[str, Verdict] = {"a": "first", "b": "second", "tie": "tie"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question and two answers to it, in the order shown.

    Attributes:
        question: The question.
        reference: The reference answer; empty if there is none.
        context: The text that the question is about; empty if it is not shown.
        first: The answer shown as A.
        second: The answer shown as B.
    """

    question: str
    reference: str
    context: str
    first: str
    second: str

    def swapped(self) -> Asked:
        """The same with the answers in the other order."""
        return Asked(
            question=self.question,
            reference=self.reference,
            context=self.context,
            first=self.second,
            second=self.first,
        )


def messages(asked: Asked) -> list[dict[str, str]]:
    """The chat messages that ask for a verdict."""
    context = f"Text:\n{asked.context}\n\n" if asked.context else ""
    text = PROMPT.format(
        context=context,
        question=asked.question,
        reference=asked.reference or "(none)",
        first=asked.first.strip() or "(empty)",
        second=asked.second.strip() or "(empty)",
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def parse(reply: str) -> Verdict | None:
    """The verdict of a reply.

    Args:
        reply: What the judge wrote.

    Returns:
        The last line that is a verdict, Markdown around it set aside; None if no line is one,
        or two lines say different things.
    """
    found = [match.lower() for match in _VERDICT.findall(reply)]
    return _VERDICTS[found[0]] if len(set(found)) == 1 else None
