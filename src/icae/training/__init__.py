"""Training: recipes -> adapters."""

from icae.training.run import TrainResult, train

__all__ = ["TrainResult", "train"]
