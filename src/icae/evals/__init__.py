"""Experiments: what an adapter's memories hold, with baselines and intervals."""

from icae.evals.adaptive import AdaptiveSettings
from icae.evals.continuation import ContinuationSettings
from icae.evals.experiment import Settings, default_lengths
from icae.evals.latency import LatencySettings
from icae.evals.memorisation import MemorisationSettings
from icae.evals.multi_span import MultiSpanSettings
from icae.evals.qa import READERS, QaSettings
from icae.evals.random_text import RandomTextSettings
from icae.evals.reconstruction import ReconstructionSettings
from icae.evals.refinement import RefinementSettings
from icae.evals.rival_texts import RivalTextSettings
from icae.evals.rivals import RivalsSettings
from icae.evals.run import Finished, evaluate
from icae.evals.slots import SlotsSettings

__all__ = [
    "READERS",
    "AdaptiveSettings",
    "ContinuationSettings",
    "Finished",
    "LatencySettings",
    "MemorisationSettings",
    "MultiSpanSettings",
    "QaSettings",
    "RandomTextSettings",
    "ReconstructionSettings",
    "RefinementSettings",
    "RivalTextSettings",
    "RivalsSettings",
    "Settings",
    "SlotsSettings",
    "default_lengths",
    "evaluate",
]
