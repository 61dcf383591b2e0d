"""Experiments: what an adapter's memories hold, with baselines and intervals."""

from icae.evals.continuation import Continuation
from icae.evals.experiment import Experiment
from icae.evals.latency import Latency
from icae.evals.memorisation import Memorisation
from icae.evals.multi_span import MultiSpan
from icae.evals.needle import NeedleMap
from icae.evals.qa import Qa
from icae.evals.random_text import RandomText
from icae.evals.reconstruction import Reconstruction
from icae.evals.refinement import Refinement
from icae.evals.results import Finished, evaluate
from icae.evals.rival_texts import RivalTexts
from icae.evals.rivals import Rivals
from icae.evals.slots import Slots

EXPERIMENTS: tuple[type[Experiment], ...] = (
    NeedleMap,
    Qa,
    Reconstruction,
    RandomText,
    Memorisation,
    Slots,
    Continuation,
    MultiSpan,
    Refinement,
    Latency,
)
"""Every experiment of the suite, in the order of the report. A new one is one line here.

`Rivals` is not among them: what needs no training is in `Qa`, and the rest needs its folders."""

__all__ = [
    "EXPERIMENTS",
    "Continuation",
    "Experiment",
    "Finished",
    "Latency",
    "Memorisation",
    "MultiSpan",
    "NeedleMap",
    "Qa",
    "RandomText",
    "Reconstruction",
    "Refinement",
    "RivalTexts",
    "Rivals",
    "Slots",
    "evaluate",
]
