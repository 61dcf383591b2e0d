"""The transformer layers of a model, one by one: compiled, or sharded over processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def layers_of(tree: nn.Module) -> list[nn.Module]:
    """The transformer layers of a model, in order."""
    return [m for m in tree.modules() if isinstance(m, GradientCheckpointingLayer)]


def compile_layers(tree: nn.Module, *, backend: str) -> None:
    """Compile each layer in place, once for all batch shapes: minutes less than a whole model.

    Compiled anew for every shape it is no faster, and after eight shapes torch gives up.

    Args:
        tree: A model.
        backend: A compiler known to `torch.compile`.
    """
    for layer in layers_of(tree):
        layer.compile(backend=backend, dynamic=True)


def shard_layers(tree: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the frozen weights of each layer over processes (FSDP2), in place.

    Nearly all weights are frozen and need neither gradients nor optimizer state: each layer is
    gathered when it computes, forward and backward, and given up again. Trained weights,
    embeddings, last norm and vocabulary head stay whole.

    Args:
        tree: A model.
        mesh: The processes, in one dimension.
    """
    from torch.distributed.fsdp import fully_shard

    for layer in layers_of(tree):
        trained = {p for p in layer.parameters() if p.requires_grad}
        fully_shard(layer, mesh=mesh, ignored_params=trained)


def own_frozen_weights(layer: nn.Module) -> None:
    """Give a layer copies of its frozen weights, where another tree holds the same ones."""
    for module in layer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                copied = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                module.register_parameter(name, copied)
