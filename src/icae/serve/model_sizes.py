"""The sizes of a decoder that costs follow from, read out of its ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icae.decode.runtime import kv_bytes
from icae.errors import BaseModelError

_FUSED = ("gpt_neox",)
"""`model_type` of decoders whose MLP has two matrices and whose query, key and value are one."""

_OTHER_COSTS = {
    "kv_lora_rank": "a latent key-value cache",
    "n_routed_experts": "a mixture of experts",
    "num_experts": "a mixture of experts",
    "num_local_experts": "a mixture of experts",
    "state_size": "state-space layers",
    "ssm_state_size": "state-space layers",
    "mamba_d_state": "state-space layers",
    "conv_L_cache": "convolution layers",
    "linear_num_value_heads": "linear attention",
}
"""Keys of configurations whose cost does not follow from the sizes below."""


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """What the cost of a dense decoder with full attention follows from.

    Attributes:
        hidden: D, width of a hidden state and of a slot.
        layers: Transformer layers.
        heads: Query heads of a layer.
        kv_heads: Key-value heads of a layer.
        head_size: Width of a head.
        mlp: Inner width of the MLP.
        mlp_matrices: Matrices of the MLP: 3 with a gate, else 2.
        vocabulary: V, number of token ids.
        windowed: Layers that see the last `window` places alone.
        window: Places that they see, the newest one included.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    mlp: int
    mlp_matrices: int
    vocabulary: int
    windowed: int = 0
    window: int = 0

    def cache_bytes(self, places: int, element: int) -> int:
        """Bytes of key-value cache of so many places; a layer with a window keeps no more."""
        layer = kv_bytes(1, self.kv_heads, self.head_size, element=element)
        kept = min(places, max(0, self.window - 1))
        return layer * ((self.layers - self.windowed) * places + self.windowed * kept)

    @classmethod
    def of_config(cls, config: Mapping[str, Any], *, name: str = "the model") -> ModelSizes:
        """Read the sizes out of a ``config.json``; of a model for text and images, its text part.

        Raises:
            BaseModelError: If a size is missing or wrong, or the decoder is of a kind
                whose cost does not follow from them.
        """
        nested = config.get("text_config")
        config = nested if isinstance(nested, Mapping) else config
        other = [what for key, what in _OTHER_COSTS.items() if config.get(key)]
        if other:
            raise BaseModelError(
                f"The cost of {name} cannot be planned.",
                got=other[0],
                expected="a dense decoder with attention in every layer",
            )
        heads = _size(config, "num_attention_heads", name)
        hidden = _size(config, "hidden_size", name)
        kv_heads, head_size = config.get("num_key_value_heads"), config.get("head_dim")
        return cls(
            hidden=hidden,
            layers=_size(config, "num_hidden_layers", name),
            heads=heads,
            kv_heads=heads if kv_heads is None else _size(config, "num_key_value_heads", name),
            head_size=hidden // heads if head_size is None else _size(config, "head_dim", name),
            mlp=_size(config, "intermediate_size", name),
            mlp_matrices=2 if config.get("model_type") in _FUSED else 3,
            vocabulary=_size(config, "vocab_size", name),
            windowed=_windowed(config),
            window=config.get("sliding_window") or 0,
        )

    @classmethod
    def of_file(cls, path: Path) -> ModelSizes:
        """Read the sizes out of a ``config.json``; a BaseModelError if it cannot be."""
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
        return cls.of_config(config, name=str(path))


def _windowed(config: Mapping[str, Any]) -> int:
    """Layers with a sliding window."""
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return 0
    layers, kinds = int(config["num_hidden_layers"]), config.get("layer_types")
    if kinds:
        return sum(kind == "sliding_attention" for kind in kinds)
    every = config.get("sliding_window_pattern", 2 if config.get("model_type") == "gemma2" else 0)
    return layers - layers // every if every else layers


def _size(config: Mapping[str, Any], key: str, name: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise BaseModelError(
            f"The configuration of {name} does not say its {key}.",
            got="nothing" if value is None else repr(value),
            expected="a whole number >= 1",
            fix="Write the sizes into a config.json and give its path.",
        )
    return value
