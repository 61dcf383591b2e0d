"""Training: recipes -> adapters."""

from icae.train.from_recipe import TrainResult, train

__all__ = ["TrainResult", "train"]
