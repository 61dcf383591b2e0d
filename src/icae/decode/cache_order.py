"""How llama.cpp keeps the keys and values of a base model: found by comparing it with torch.

Both read the same tokens. A channel of one cache is found among those of the other by its
numbers; how torch turns keys is found by `icae.model.rotary`.

Shape legend: P tokens, Y layers, H key-value heads, W head width, C = H W channels.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from icae.config.types import FloatArray
from icae.decode.llamacpp.context import LlamaContext, LlamaModel
from icae.decode.llamacpp.order import CacheOrder, LayerOrder
from icae.errors import BaseModelError
from icae.model.around import embed
from icae.model.base import load_decoder
from icae.model.decoder import read
from icae.model.rotary import key_turns

TOKENS = 64
"""Tokens that both read, spread over the vocabulary."""

TOLERANCE = 0.1
"""Largest difference of a channel, of its size, that rounding explains."""

log = logging.getLogger(__name__)


def write_order(base: str, model: LlamaModel, path: Path) -> None:
    """Find the order of a base model, by its name and in a GGUF file, and write it.

    Raises:
        BaseModelError: As for `find_order`, or if the base cannot be loaded.
    """
    log.info("comparing the caches of torch and llama.cpp (once)")
    find_order(load_decoder(base, dtype=torch.float32, device="cpu"), model).write(path)


@torch.inference_mode()
def find_order(decoder: PreTrainedModel, model: LlamaModel) -> CacheOrder:
    """Compare the caches of a base model, float32, in torch and in llama.cpp.

    Raises:
        BaseModelError: If keys cannot be moved to other positions, or the caches differ by more
            than the order of channels.
    """
    turns = key_turns(decoder)
    ids = np.linspace(0, model.vocabulary - 1, TOKENS).astype(np.int64)
    layers = read(decoder, embed(decoder, torch.from_numpy(ids)[None]), torch.arange(TOKENS)[None])
    context = LlamaContext(model, places=TOKENS, sequences=1, kv_dtype="float32")
    context.read_tokens(ids, start=0, sequence=0)
    state = context.state(0)
    context.close()
    return CacheOrder.of(
        [
            LayerOrder(
                width=keys.shape[-1],
                frequencies=tuple(turn.frequency_F.tolist()),
                interleaved=turn.interleaved,
                keys=_order(_channels(keys), state.keys_YPC[layer], f"keys, layer {layer}"),
                values=_order(
                    _channels(values), state.values_YPC[layer], f"values of layer {layer}"
                ),
            )
            for layer, (turn, (keys, values)) in enumerate(zip(turns, layers, strict=True))
        ]
    )


def _channels(tensor_1HPW: torch.Tensor) -> FloatArray:
    """Numbers of a layer, [P, C]."""
    channels_PC: FloatArray = tensor_1HPW[0].transpose(0, 1).flatten(1).float().numpy()
    return channels_PC


def _order(torch_PC: FloatArray, llama_PC: FloatArray, what: str) -> tuple[int, ...]:
    """Channel of torch that each channel of llama.cpp is."""
    distance_CC = ((llama_PC[:, :, None] - torch_PC[:, None, :]) ** 2).sum(0)
    order_C = distance_CC.argmin(axis=1)
    error = float(np.sqrt(distance_CC.min(axis=1) / (llama_PC**2).sum(0)).max())
    if error > TOLERANCE or len(set(order_C.tolist())) < len(order_C):
        raise BaseModelError(
            "llama.cpp computes other keys and values than torch.",
            got=f"{what}: {error:.3g} of its size apart",
            expected=f"at most {TOLERANCE}",
            fix="Use --runtime torch.",
        )
    return tuple(order_C.tolist())
