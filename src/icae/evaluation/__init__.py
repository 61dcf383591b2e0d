"""Experiments: what an adapter's memories hold, with baselines and intervals."""

from icae.evaluation.adaptive import AdaptiveSettings
from icae.evaluation.continuation import ContinuationSettings
from icae.evaluation.experiment import Settings, default_lengths
from icae.evaluation.qa import READERS, QaSettings
from icae.evaluation.random_text import RandomTextSettings
from icae.evaluation.reconstruction import ReconstructionSettings
from icae.evaluation.refinement import RefinementSettings
from icae.evaluation.run import Finished, evaluate

__all__ = [
    "READERS",
    "AdaptiveSettings",
    "ContinuationSettings",
    "Finished",
    "QaSettings",
    "RandomTextSettings",
    "ReconstructionSettings",
    "RefinementSettings",
    "Settings",
    "default_lengths",
    "evaluate",
]
