"""What every trained model here is: a frozen base model, and its weights seen through a LoRA.

The LoRA has a second module tree over the *same* parameter tensors (one copy in memory). The
decoder's own tree never contains a LoRA module, so it is the base model bit for bit at any
time, also while gradient checkpointing recomputes an encoder pass in the middle of a backward.
"""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.types import TokenIds
from icae.errors import BaseModelError
from icae.model.around import input_scale, layers_of
from icae.model.losses import TaskScore
from icae.model.objectives import Sample

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

QV_NAMES = (
    ("q_proj", "v_proj"),
    ("query_key_value",),
    ("qkv_proj",),
    ("q_lin", "v_lin"),
    ("q_b_proj", "kv_b_proj"),
    ("q_proj", "kv_b_proj"),
)
"""Names of the query and value projections: the Llama, Qwen2, Mistral, ... families; GPT-NeoX,
Phi-3 and their kin, whose one fused projection holds query, key and value; others; those of
latent attention, whose values come out of a projection that makes keys too."""


def lora_target_modules(base: nn.Module, config: ModelConfig) -> list[str] | str:
    """Names of the modules that LoRA adapts in this base model.

    Raises:
        BaseModelError: If the attention projections have names we do not know.
    """
    if config.lora_targets == "all-linear":
        return "all-linear"
    names = {name.rsplit(".", 1)[-1] for name, _ in base.named_modules()}
    for candidates in QV_NAMES:
        if names.issuperset(candidates):
            return list(candidates)
    raise BaseModelError(
        f"Cannot find the query and value projections of {type(base).__name__}.",
        got="its projections are "
        + (", ".join(sorted(n for n in names if "proj" in n or "attn" in n)) or "of no known name"),
        expected=" or ".join("+".join(c) for c in QV_NAMES),
        fix="Use model.lora_targets: all-linear, or a base with separate projections.",
    )


def wrap_lora(base: nn.Module, config: ModelConfig) -> PeftModel:
    """The base model's very weights seen through a fresh, trainable LoRA (float32)."""
    shared: dict[int, object] = {id(t): t for t in (*base.parameters(), *base.buffers())}
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=lora_target_modules(base, config),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks transformers 5 by an attribute name that is being renamed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        return get_peft_model(copy.deepcopy(base, shared), lora)


class AdaptedDecoder(nn.Module):
    """A frozen base model, never modified, and a LoRA over its weights."""

    def __init__(self, decoder: PreTrainedModel, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        decoder.requires_grad_(False)
        decoder.eval()
        _without_dropout(decoder)
        input_scale(decoder)  # found before there are two trees
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.lora = wrap_lora(decoder, config)
        # Held in a tuple: its weights are registered once, through the LoRA's tree.
        self._decoder: tuple[PreTrainedModel, ...] = (decoder,)

    @property
    def decoder(self) -> PreTrainedModel:
        """The frozen base model; its module tree holds no LoRA."""
        return self._decoder[0]

    @property
    def adapted(self) -> PreTrainedModel:
        """The base model seen through the LoRA."""
        tree: PreTrainedModel = self.lora.get_base_model()
        return tree

    @property
    def trees(self) -> tuple[PreTrainedModel, ...]:
        """The module trees that a training step runs."""
        return (self.adapted, self.decoder)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.adapted.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the frozen base weights."""
        return self.adapted.get_input_embeddings().weight.dtype

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained weights by name; those of the LoRA start with ``lora.``."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def end_training(self) -> None:
        """From now on the LoRA computes in the precision of the weights, not in float32."""
        for name, parameter in self.trainable().items():
            if name.startswith("lora."):
                parameter.data = parameter.data.to(self.dtype)

    def own_state(self) -> dict[str, Tensor]:
        """Weights and statistics beside the LoRA by name; the model's own tensors, no copies."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("lora.")}

    def calibrate(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> None:
        """Measure on sample spans, once before training, what is not trained: nothing here."""

    @abstractmethod
    def forward(self, samples: Sequence[Sample]) -> list[TaskScore]:
        """Scores in order of samples, then of their tasks."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode; encoder and decoder always compute as in eval mode."""
        super().train(mode)
        for tree in self.trees:
            tree.eval()
            for layer in layers_of(tree):
                # Only the layer's own flag, which turns recomputing on; there is no dropout.
                layer.training = mode
        return self

    @contextmanager
    def gradients_to_inputs(self) -> Iterator[None]:
        """Gradients reach what the decoder reads and no weight, as fast as they can.

        On CPUs attention is then plain matrix products: the backward pass of torch's fused
        attention takes 4 times as long (bfloat16, 132 places behind 36) [measured].
        """
        trained, before = self.trainable().values(), self.decoder.config._attn_implementation
        for parameter in trained:
            parameter.requires_grad_(False)
        if self.device.type == "cpu" and before == "sdpa":
            self.decoder.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.decoder.set_attn_implementation(before)
            for parameter in trained:
                parameter.requires_grad_(True)

    def checkpoint_activations(self) -> None:
        """Recompute activations in the backward pass: less memory."""
        for tree in self.trees:
            tree.gradient_checkpointing_enable({"use_reentrant": False})

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile each layer in place, once for all batch shapes: minutes less than a whole model.

        Compiled anew for every shape it is no faster, and after eight shapes torch gives up.
        """
        for tree in self.trees:
            for layer in layers_of(tree):
                layer.compile(backend=backend, dynamic=True)

    def shard_layers(self, mesh: DeviceMesh) -> None:
        """Shard the frozen weights of every layer over processes (FSDP2).

        They need neither gradients nor optimizer state: each layer is gathered when it computes,
        forward and backward, and given up again. Trained weights, embeddings, last norm and
        vocabulary head stay whole. The trees share their weights until then; a shard belongs
        to one tree alone.
        """
        from torch.distributed.fsdp import fully_shard

        for layer in layers_of(self.adapted):
            _own_frozen_weights(layer)
        for tree in self.trees:
            for layer in layers_of(tree):
                trained = {p for p in layer.parameters() if p.requires_grad}
                fully_shard(layer, mesh=mesh, ignored_params=trained)


def _without_dropout(decoder: nn.Module) -> None:
    """Set every rate of dropout to 0: a layer that recomputes is in training mode itself."""
    for module in decoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for owner in (module, getattr(module, "config", None)):
            for name, value in vars(owner).items() if owner is not None else ():
                if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
                    setattr(owner, name, 0.0)


def _own_frozen_weights(layer: nn.Module) -> None:
    """Give a layer copies of its frozen weights, where another tree holds the same ones."""
    for module in layer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                copied = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                module.register_parameter(name, copied)
