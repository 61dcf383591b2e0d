"""Shards in one process: the arithmetic is the same. Two processes: an integration test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from icae.model import Sample
from icae.model.objectives import autoencoding
from icae.model.sharding import layers_of


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    """A group of one process."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def loss_and_gradients(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    ids = np.arange(20)
    scores = model([Sample(context_ids=ids, ratio=4.0, tasks=(autoencoding(ids),))])
    scores[0].loss_sum.backward()
    grads = {name: p.grad.clone() for name, p in model.trainable().items()}
    return float(scores[0].loss_sum.detach()), grads


def test_sharded_model_gives_the_loss_and_gradients_of_the_whole_one(
    mesh: DeviceMesh, build_model: Any
) -> None:
    whole, sharded = build_model(), build_model()
    sharded.shard_layers(mesh)
    loss, grads = loss_and_gradients(whole)
    own_loss, own_grads = loss_and_gradients(sharded)
    assert own_loss == pytest.approx(loss)
    assert own_grads.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(own_grads[name], grad)


def test_frozen_weights_of_both_trees_are_shards_and_trained_ones_are_whole(
    mesh: DeviceMesh, build_model: Any
) -> None:
    model = build_model()
    model.shard_layers(mesh)
    for part in (model.decoder, model.lora.get_base_model()):
        for layer in layers_of(part):
            for name, parameter in layer.named_parameters():
                assert isinstance(parameter, DTensor) != parameter.requires_grad, name
    assert not any(isinstance(p, DTensor) for p in model.trainable().values())
