"""The decoder is the base model, bit for bit, at any time, whatever is done to its layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from icae.config import ModelConfig
from icae.errors import BaseModelError
from icae.model.adapted_decoder import lora_target_modules
from icae.model.around import layers_of
from icae.model.full_context import FullContextModel
from icae.model.objectives import Sample, autoencoding, continuation, instruction


@pytest.fixture
def samples(random_ids):
    """Two contexts, one of them of several spans, with every objective."""
    context, other = random_ids(12), random_ids(37, 1)
    return [
        Sample(
            context_ids=context,
            ratio=2.0,
            tasks=(autoencoding(context), continuation(random_ids(5, 2))),
        ),
        Sample(context_ids=other, ratio=4.0, tasks=(instruction(context[:4], context[4:]),)),
    ]


def logits(causal_lm: Any, ids: Any) -> torch.Tensor:
    with torch.no_grad():
        return causal_lm(input_ids=torch.as_tensor(ids)[None]).logits


def test_decoder_weights_are_bit_identical_after_training(
    family, build_model, build_decoder, samples, train, random_ids
):
    pristine = build_decoder(family)
    model = build_model(family, decoder=copy.deepcopy(pristine), trained=False)
    before = {name: p.detach().clone() for name, p in model.trainable().items()}

    train(model, samples)

    after = dict(model.decoder.named_parameters())
    assert after.keys() == dict(pristine.named_parameters()).keys()
    for name, weight in pristine.named_parameters():
        assert torch.equal(weight, after[name]), name
    moved = [name for name, p in model.trainable().items() if not torch.equal(p, before[name])]
    assert moved == list(before)
    assert all(p.grad is None and not p.requires_grad for p in model.decoder.parameters())
    assert all(p.grad is not None for p in model.trainable().values())
    ids, base = random_ids(20), logits(pristine, random_ids(20))
    assert torch.equal(logits(model.decoder, ids), base)
    assert not torch.equal(logits(model.adapted, ids), base)
    with model.lora.disable_adapter():
        assert torch.equal(logits(model.adapted, ids), base)


@pytest.mark.parametrize("head", ["plain", "residual"])
def test_only_lora_in_the_layers_tokens_and_head_are_trainable(family, build_model, head):
    names = set(build_model(family, slot_head=head).trainable())

    projections = ("query_key_value",) if family == "gpt-neox" else ("q_proj", "v_proj")
    lora = {n for n in names if n.startswith("lora.")}
    assert len(lora) == 2 * 2 * len(projections)  # layers, A and B
    for name in lora:
        module, matrix = name.split(".")[-4], name.split(".")[-3]
        assert module in projections, name
        assert matrix in ("lora_A", "lora_B"), name
    every = build_model(family, lora_targets="all-linear").trainable()
    assert lora < {n for n in every if n.startswith("lora.")}
    assert not any("lm_head" in n or "embed" in n for n in every)
    own = set() if head == "plain" else {"head.gain_D", "head.shift_D"}
    assert names - lora == {"tokens.memory_ND", "tokens.objective_ND"} | own


def test_encoder_and_decoder_share_one_copy_of_the_weights(family, build_model):
    model = build_model(family)
    encoder = model.lora.get_base_model()
    in_encoder = {
        name.replace(".base_layer", ""): p.data_ptr()
        for name, p in encoder.named_parameters()
        if "lora_" not in name
    }
    in_decoder = {name: p.data_ptr() for name, p in model.decoder.named_parameters()}

    assert in_encoder == in_decoder
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in (*model.decoder.parameters(), *model.trainable().values())
    )


def test_encoder_and_decoder_compute_as_in_eval_mode_while_training(build_model):
    model = build_model().train()

    for tree in model.trees:
        flagged = {id(layer) for layer in layers_of(tree)}  # turns recomputing on, nothing else
        assert all(m.training == (id(m) in flagged) for m in tree.modules())


@pytest.fixture
def mesh(tmp_path):
    """A group of one process."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


LAYERS: dict[str, Callable[[Any, DeviceMesh], None]] = {
    "recomputed": lambda model, mesh: model.checkpoint_activations(),
    "compiled": lambda model, mesh: model.compile_layers(backend="eager"),
    "sharded": lambda model, mesh: model.shard_layers(mesh),
}


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("change", LAYERS)
def test_what_is_done_to_layers_changes_no_loss_and_no_gradient(
    mesh, build_model, build_decoder, samples, change
):
    reader = FullContextModel(build_decoder(), ModelConfig(lora_rank=4))
    context, task = samples[1].context_ids, samples[1].tasks[0]
    whole = replace(task, full_prompt_ids=np.concatenate([context, context[:4]]))
    read = [replace(samples[1], tasks=(whole,))]
    for model, own in ((build_model(), samples), (reader, read)):
        found, passes = [], []
        for prepare in (lambda model, mesh: None, LAYERS[change]):
            prepare(model, mesh)
            model.train().zero_grad()
            seen: list[Any] = []
            for tree in model.trees:
                mlp = layers_of(tree)[0].get_submodule("mlp")
                mlp.register_forward_pre_hook(lambda module, _, seen=seen: seen.append(module))
            scores = model(own)
            sum(score.loss_sum for score in scores).backward()
            passes.append(len(seen))
            grads = {n: p.grad.clone() for n, p in model.trainable().items()}
            found.append(grads | {str(i): s.loss_sum.detach() for i, s in enumerate(scores)})
        for name, value in found[0].items():
            torch.testing.assert_close(found[1][name], value, atol=1e-5, rtol=1e-4)
        assert found[0]["0"].abs() > 0
        for tree in model.trees if change == "sharded" else ():
            for layer in layers_of(tree):
                for name, parameter in layer.named_parameters():
                    assert isinstance(parameter, DTensor) != parameter.requires_grad, name
        # Activations are computed again in both trees, and never otherwise.
        assert passes[1] == passes[0] * (2 if change == "recomputed" else 1)


def test_a_model_with_unknown_projection_names_is_refused():
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = torch.nn.Linear(2, 2)

    with pytest.raises(BaseModelError, match="query and value projections of Odd") as caught:
        lora_target_modules(Odd(), ModelConfig())

    assert caught.value.got == "its projections are c_attn"
