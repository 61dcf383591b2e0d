"""How the processes of a launch share a model: whole replicas, or frozen weights in shards."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch.optim import Optimizer

from icae.config.types import Sharing
from icae.model.adapted_decoder import AdaptedDecoder

if TYPE_CHECKING:
    from accelerate import Accelerator


class Replicas:
    """Every process holds all weights (DDP).

    Attributes:
        model: What is called for scores.
        optimizer: The optimizer as Accelerate wraps it.
    """

    def __init__(
        self, accelerator: Accelerator, model: AdaptedDecoder, optimizer: Optimizer
    ) -> None:
        self.accelerator = accelerator
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Around one micro-batch: DDP averages in the backward pass of the last one of a step."""
        context: AbstractContextManager[None] = self.accelerator.no_sync(self.model)
        return nullcontext() if last else context

    def average_gradients(self) -> None:
        """Called after the last backward pass; done by DDP."""

    def evaluates(self) -> bool:
        """Whether this process takes part in held-out evaluation: process 0 has all weights."""
        return bool(self.accelerator.is_main_process)


class FrozenShards:
    """Every process holds a shard of each layer's frozen weights, and all trained weights.

    It does what `Replicas` does, and has its attributes.
    """

    def __init__(
        self, accelerator: Accelerator, model: AdaptedDecoder, optimizer: Optimizer
    ) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        self.accelerator = accelerator
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        model.shard_layers(mesh)
        self.trained = list(model.trainable().values())
        self.model, self.optimizer = model, accelerator.prepare(optimizer)

    def accumulating(self, *, last: bool) -> AbstractContextManager[None]:
        """Nothing is averaged in a backward pass."""
        return nullcontext()

    def average_gradients(self) -> None:
        """One sum over the processes for all gradients together."""
        for parameter in self.trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [p.grad for p in self.trained if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        mean = self.accelerator.reduce(flat, "mean")
        for grad, part in zip(grads, mean.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def evaluates(self) -> bool:
        """No process has all weights: each takes part."""
        return True


SHARINGS: Mapping[Sharing, type[Replicas] | type[FrozenShards]] = {
    "replicas": Replicas,
    "frozen-shards": FrozenShards,
}
"""What `run.sharing` names."""
