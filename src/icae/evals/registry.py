"""Every experiment of the suite, in the order of the report. A new one is one line here."""

from __future__ import annotations

from typing import Any

from icae.evals.adaptive import Adaptive
from icae.evals.continuation import Continuation
from icae.evals.experiment import Experiment
from icae.evals.latency import Latency
from icae.evals.memorisation import Memorisation
from icae.evals.multi_span import MultiSpan
from icae.evals.qa import Qa
from icae.evals.random_text import RandomText
from icae.evals.reconstruction import Reconstruction
from icae.evals.refinement import Refinement
from icae.evals.rivals import Rivals
from icae.evals.slots import Slots

EXPERIMENTS: tuple[type[Experiment[Any]], ...] = (
    Reconstruction,
    RandomText,
    Memorisation,
    Slots,
    Continuation,
    MultiSpan,
    Refinement,
    Adaptive,
    Qa,
    Rivals,
    Latency,
)
