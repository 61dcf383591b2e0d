"""Sharding the frozen weights over processes (FSDP2); trained weights stay whole on each.

Nearly all weights are frozen and need neither gradients nor optimizer state: each layer is
gathered when it computes, forward and backward, and given up again. Embeddings, last norm and
vocabulary head stay whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def layers_of(part: nn.Module) -> list[nn.Module]:
    """The transformer layers of a model, in order."""
    return [m for m in part.modules() if isinstance(m, GradientCheckpointingLayer)]


def shard_layers(part: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the frozen weights of each transformer layer, in place.

    Args:
        part: A model.
        mesh: The processes, in one dimension.
    """
    from torch.distributed.fsdp import fully_shard

    for layer in layers_of(part):
        trained = {p for p in layer.parameters() if p.requires_grad}
        fully_shard(layer, mesh=mesh, ignored_params=trained)


def own_frozen_weights(layer: nn.Module) -> None:
    """Give a layer copies of its frozen weights, where another tree holds the same ones."""
    for module in layer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                copied = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                module.register_parameter(name, copied)
