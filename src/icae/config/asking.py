"""How texts and questions become tokens, of adapters that do not use their base's own way.

Shape legend: L context tokens of a span, K slots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from icae.config.spans import SpanPlan, plan_spans, slot_count

Cut = Literal["full", "equal"]
Mark = Literal["nothing", "objective"]


@dataclass(frozen=True, kw_only=True)
class SpanConfig:
    """How a context is cut into spans, and how many slots each gets.

    Attributes:
        cut: ``full``: spans of full length, and a tail; ``equal``: as many spans, of one length.
        slots: Slots of every span, however long it is; None: as many as the ratio gives.
    """

    cut: Cut = "full"
    slots: int | None = None

    def count(self, length: int, ratio: float) -> int:
        """Slots of a span of `length` tokens at a ratio."""
        return slot_count(length, ratio) if self.slots is None else self.slots

    def plan(self, length: int, *, span_length: int, ratio: float) -> tuple[SpanPlan, ...]:
        """Cut a context of `length` tokens into spans of at most `span_length`, with their slots.

        Raises:
            ConfigError: If a length or the ratio is out of range.
        """
        if self.cut == "equal":
            spans = -(-length // span_length)
            span_length = -(-length // max(1, spans))
        plans = plan_spans(length, span_length=span_length, ratio=ratio)
        return plans if self.slots is None else tuple(replace(p, slots=self.slots) for p in plans)


@dataclass(frozen=True, kw_only=True)
class AskingConfig:
    """How a memory is asked.

    Attributes:
        template: ``chat``: questions are written by the base's chat template; ``own``: as they
            stand, between the tokens below.
        begin: Token ids before the tokens of a document, part of its first span: BOS.
        before: Token ids before a memory that is asked.
        behind: Token ids behind a question.
        closing: What stands behind that: ``nothing``, or the ``objective`` token again.
        continuation: What stands between a memory and the text that goes on: the ``objective``
            tokens, or ``nothing``.
        stop: Token ids that end an answer; none: the base's.
        written_end: Token ids that end a text that is written back, scored in training.
    """

    template: Literal["chat", "own"] = "chat"
    begin: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    closing: Mark = "nothing"
    continuation: Mark = "objective"
    stop: tuple[int, ...] = ()
    written_end: tuple[int, ...] = ()
