"""What the training loop needs of a model: an adapter's, a full-context reader's, a rival's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from icae.config.types import Objective
from icae.model import Sample, TaskScore

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class TrainedModel(Protocol):
    """A module over frozen base weights that scores samples."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained weights by name; those of a LoRA start with ``lora.``."""
        ...

    def fixed_state(self) -> dict[str, Tensor]:
        """State beside the trained weights that a checkpoint must hold."""
        ...

    def load_fixed_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore it."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Set the mode."""
        ...

    def eval(self) -> Any:
        """Set the mode for measuring."""
        ...

    def checkpoint_activations(self) -> None:
        """Recompute activations in the backward pass."""
        ...

    def compile_layers(self) -> None:
        """Compile the transformer layers."""
        ...

    def shard_layers(self, mesh: DeviceMesh) -> None:
        """Shard the frozen weights of the transformer layers over processes."""
        ...

    def __call__(
        self, samples: Sequence[Sample], *, kl_shares: Mapping[Objective, float] = ...
    ) -> list[TaskScore]:
        """Scores in order of samples, then of their tasks."""
        ...
