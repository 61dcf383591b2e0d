"""Settings of adapters and recipes, strictly parsed; span arithmetic; small value types."""

from icae.config.data import DataConfig, RatioStage, TripletFile
from icae.config.recipe import (
    UNTRAINED,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    Recipe,
    RunConfig,
    load_recipe,
)

__all__ = [
    "UNTRAINED",
    "DataConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "RatioStage",
    "Recipe",
    "RunConfig",
    "TripletFile",
    "load_recipe",
]
