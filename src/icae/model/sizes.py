"""The sizes of a decoder that costs follow from, found on a model without weights.

The model of a ``config.json`` is built on torch's ``meta`` device (shapes alone), so nothing here
knows architectures: weights are counted, the cache is measured on one of a few places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from icae.config import ModelConfig
from icae.config.types import KeyValueShape
from icae.errors import BaseModelError
from icae.model.adapted_decoder import lora_target_modules
from icae.model.around import layers_of
from icae.model.base import quiet_loading
from icae.model.base_files import trusts_remote_code
from icae.model.cache_size import CacheSize

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Names of the setting that says how many experts a layer has."""
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k")
"""Names of the setting that says how many of them a token takes."""


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """What the cost of a decoder follows from.

    Attributes:
        hidden: D, width of a hidden state and of a slot.
        vocabulary: V, number of token ids.
        weights: Weights of the layers' matrices that a token meets: of experts those it takes.
        attended: Width of all queries of a place, in all layers that attend.
        cache: What a cache takes, layer by layer, in the precision asked for.
        key_values: What a slot is where it is keys and values; None if layers differ.
        lora_ends: Inputs and outputs of the matrices that a LoRA adapts, by `lora_targets`;
            0 where it has none of them.
    """

    hidden: int
    vocabulary: int
    weights: int
    attended: int
    cache: CacheSize
    key_values: KeyValueShape | None
    lora_ends: Mapping[str, int]

    @classmethod
    def of_file(cls, path: Path, *, dtype: str = "bfloat16") -> ModelSizes:
        """Find the sizes of the model of a ``config.json``; of one for images, its text part's.

        Args:
            path: The file.
            dtype: Precision of the cache: bfloat16 or float32.

        Raises:
            BaseModelError: If the file is no configuration of a causal LM with a cache.
        """
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(config, dict):
                raise ValueError(f"a {type(config).__name__}")
        except (OSError, ValueError) as error:
            raise BaseModelError(
                f"{path} cannot be read as the configuration of a model.",
                got=getattr(error, "strerror", None) or str(error),
                expected="the config.json of a causal LM",
            ) from error
        text = config.get("text_config")
        try:
            with quiet_loading():
                settings = AutoConfig.for_model(**(text if isinstance(text, dict) else config))
                return cls.of_config(settings, dtype=getattr(torch, dtype))
        except Exception as error:  # whatever a model's own code raises at sizes that are wrong
            raise BaseModelError(
                f"{path} does not give the sizes of a causal LM that transformers knows.",
                got=(str(error).strip().splitlines() or [type(error).__name__])[0],
                expected="model_type and the sizes that it needs",
                fix="Write them into a config.json and give its path.",
            ) from error

    @classmethod
    def of_config(cls, config: PreTrainedConfig, *, dtype: torch.dtype) -> ModelSizes:
        """Find the sizes of the model of a configuration."""
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=dtype, trust_remote_code=trusts_remote_code()
            ).eval()
        if hasattr(config, "_experts_implementation"):
            config._experts_implementation = "batched_mm"  # the one that needs no values
        embeddings = model.get_input_embeddings().weight
        cache = CacheSize.of(model)
        heads = int(config.num_attention_heads)
        kv_heads = getattr(config, "num_key_value_heads", None)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        growing = sum(layer.place > 0 for layer in cache.layers)
        return cls(
            hidden=embeddings.shape[1],
            vocabulary=embeddings.shape[0],
            weights=_weights(model, config),
            attended=growing * heads * size,
            cache=cache,
            key_values=_shape(cache, kv_heads or heads, size, dtype),
            lora_ends=_lora_ends(model),
        )


def _weights(model: PreTrainedModel, config: PreTrainedConfig) -> int:
    """Weights of matrices in the layers that one token meets; embeddings and norms are none."""
    experts, chosen = (
        next((int(n) for name in names if (n := getattr(config, name, None))), 1)
        for names in (EXPERTS, CHOSEN)
    )
    met = 0.0
    for layer in layers_of(model):
        for name, weight in layer.named_parameters():
            if weight.ndim >= 2:
                shared = ".experts." not in f".{name}"
                met += weight.numel() * (1 if shared else min(1.0, chosen / experts))
    return round(met)


def _shape(cache: CacheSize, heads: int, size: int, dtype: torch.dtype) -> KeyValueShape | None:
    """The shape of a slot of keys and values, if that is what every layer keeps of a place."""
    place = 2 * heads * size * dtype.itemsize
    if any(layer.fixed or layer.place != place for layer in cache.layers):
        return None
    return KeyValueShape(layers=len(cache.layers), heads=heads, width=size)


def _lora_ends(model: PreTrainedModel) -> dict[str, int]:
    """Inputs and outputs of all matrices that a LoRA adapts, for each kind of targets."""
    ends = {"all-linear": 0, "qv": 0}
    try:
        targets = lora_target_modules(model, ModelConfig())
    except BaseModelError:
        targets = []
    for layer in layers_of(model):
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                both = module.in_features + module.out_features
                ends["all-linear"] += both
                if name.rsplit(".", 1)[-1] in targets:
                    ends["qv"] += both
    return ends
