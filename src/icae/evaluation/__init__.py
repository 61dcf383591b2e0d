"""Experiments: what an adapter's memories hold, with baselines and intervals."""

from icae.evaluation.adaptive import AdaptiveSettings
from icae.evaluation.continuation import ContinuationSettings
from icae.evaluation.experiment import Settings, default_lengths
from icae.evaluation.latency import LatencySettings
from icae.evaluation.memorisation import MemorisationSettings
from icae.evaluation.multi_span import MultiSpanSettings
from icae.evaluation.qa import READERS, QaSettings
from icae.evaluation.random_text import RandomTextSettings
from icae.evaluation.reconstruction import ReconstructionSettings
from icae.evaluation.refinement import RefinementSettings
from icae.evaluation.rival_texts import RivalTextSettings
from icae.evaluation.rivals import RivalsSettings
from icae.evaluation.run import Finished, evaluate
from icae.evaluation.slots import SlotsSettings

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
