"""Training: recipes -> adapters."""

from icae.train.run import TrainResult, train

__all__ = ["TrainResult", "train"]
