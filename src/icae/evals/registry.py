"""Every experiment of the suite, in the order of the report, small and as a paper would.

A new experiment is one `Entry` more in `ENTRIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from icae.evals.adaptive import AdaptiveSettings
from icae.evals.continuation import ContinuationSettings
from icae.evals.experiment import Settings, default_lengths
from icae.evals.latency import PAPER_SIZES, PAPER_TOKENS, LatencySettings
from icae.evals.memorisation import MemorisationSettings
from icae.evals.multi_span import MultiSpanSettings
from icae.evals.qa import QaSettings
from icae.evals.random_text import RandomTextSettings
from icae.evals.reconstruction import ReconstructionSettings
from icae.evals.refinement import RefinementSettings
from icae.evals.rivals import RivalsSettings
from icae.evals.slots import SlotsSettings

Scale = Literal["quick", "full"]
Reads = Literal["texts", "questions"]

RATIOS = (2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One experiment of the suite.

    Attributes:
        name: Name of the experiment and of its files.
        question: What it answers, one line of the report.
        reads: Held-out texts or question files.
        quick: Settings for a span length, of a few dozen seconds on two CPU cores.
        full: Settings for a span length, as for a paper.
    """

    name: str
    question: str
    reads: Reads
    quick: Callable[[int], Settings]
    full: Callable[[int], Settings]

    def settings(self, scale: Scale, span_length: int) -> Settings:
        """The settings of a scale.

        Args:
            scale: ``quick`` or ``full``.
            span_length: Of the adapter.
        """
        return {"quick": self.quick, "full": self.full}[scale](span_length)


ENTRIES = (
    Entry(
        name="reconstruction",
        question="How much of a text do its slots give back, by length and ratio?",
        reads="texts",
        quick=lambda span: ReconstructionSettings(
            lengths=(span,), ratios=RATIOS[:3], samples=16, greedy=4
        ),
        full=lambda span: ReconstructionSettings(lengths=default_lengths(span), ratios=RATIOS),
    ),
    Entry(
        name="random-text",
        question="Does the memory hold text, or only what is likely?",
        reads="texts",
        quick=lambda span: RandomTextSettings(lengths=(span,), ratios=(4.0,), samples=8, greedy=4),
        full=lambda span: RandomTextSettings(lengths=default_lengths(span), ratios=(4.0,)),
    ),
    Entry(
        name="memorisation",
        question="What is wrong where a text is written back?",
        reads="texts",
        quick=lambda span: MemorisationSettings(
            lengths=(span,), ratios=(4.0,), samples=16, examples=2
        ),
        full=lambda span: MemorisationSettings(lengths=(span,), ratios=RATIOS[:3], samples=256),
    ),
    Entry(
        name="slots",
        question="Which slot holds what?",
        reads="texts",
        quick=lambda span: SlotsSettings(lengths=(span,), ratios=(4.0,), samples=6, examples=1),
        full=lambda span: SlotsSettings(lengths=(span,), ratios=RATIOS[:3], samples=64),
    ),
    Entry(
        name="continuation",
        question="How well do slots stand for the text that goes on?",
        reads="texts",
        quick=lambda span: ContinuationSettings(
            lengths=(span,), ratios=(2.0, 4.0), tokens=32, samples=12
        ),
        full=lambda span: ContinuationSettings(lengths=default_lengths(span), ratios=RATIOS),
    ),
    Entry(
        name="multi-span",
        question="Do the slots of many spans work together, and what are they worth in raw tokens?",
        reads="texts",
        quick=lambda span: MultiSpanSettings(
            lengths=(2 * span, 4 * span), ratios=(4.0,), tokens=32, samples=6
        ),
        full=lambda span: MultiSpanSettings(
            lengths=tuple(n * span for n in (2, 4, 8, 16)), ratios=RATIOS[:3], samples=64
        ),
    ),
    Entry(
        name="refinement",
        question="What does fidelity cost at compress time?",
        reads="texts",
        quick=lambda span: RefinementSettings(
            lengths=(span,), ratios=(4.0,), starts=("encoder",), steps=20, samples=2, greedy=2
        ),
        full=lambda span: RefinementSettings(lengths=(span,), ratios=RATIOS[1:], samples=32),
    ),
    Entry(
        name="adaptive",
        question="Does a ratio chosen span by span hold more than a fixed one?",
        reads="texts",
        quick=lambda span: AdaptiveSettings(
            lengths=(3 * span,),
            ratios=RATIOS[:3],
            min_fidelities=(0.5, 0.7),
            budgets=(0.25, 0.5),
            samples=4,
        ),
        full=lambda span: AdaptiveSettings(
            lengths=(4 * span,), ratios=RATIOS, refined=(0.9, 0.99), samples=32
        ),
    ),
    Entry(
        name="qa",
        question="Are questions answered from memory as from the full context?",
        reads="questions",
        quick=lambda span: QaSettings(
            ratios=(4.0,), questions=6, max_new_tokens=16, max_context=256
        ),
        full=lambda span: QaSettings(ratios=RATIOS),
    ),
    Entry(
        name="rivals",
        question="How does the memory stand beside other ways to shorten a context?",
        reads="questions",
        quick=lambda span: RivalsSettings(
            ratios=(4.0,), questions=6, max_new_tokens=16, max_context=256
        ),
        full=lambda span: RivalsSettings(ratios=RATIOS, questions=200),
    ),
    Entry(
        name="latency",
        question="What time and memory are saved?",
        reads="texts",
        quick=lambda span: LatencySettings.of_sizes(
            [(1, 128), (4, 256)], ratios=(4.0,), tokens=8, repeats=2
        ),
        full=lambda span: LatencySettings.of_sizes(
            PAPER_SIZES, ratios=(4.0,), tokens=PAPER_TOKENS, repeats=3
        ),
    ),
)
