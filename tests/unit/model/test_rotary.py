"""Keys are moved as the model itself would place them, whatever its kind of rotary positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.bases.architectures import tiny
from transformers import DynamicCache

from icae.errors import BaseModelError
from icae.model.rotary import key_turns

YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0}
YARN |= {"original_max_position_embeddings": 128}
LLAMA3 = YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def keys_of(decoder: Any, ids: torch.Tensor, start: int) -> list[torch.Tensor]:
    cache = DynamicCache()
    positions = torch.arange(start, start + ids.shape[1])[None]
    with torch.no_grad():
        decoder.base_model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
    return [keys for keys, _, _ in cache]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Llama", {}),  # halves
        ("Llama", {"rope_parameters": YARN}),  # frequencies and keys scaled
        ("Llama", {"rope_parameters": LLAMA3}),  # frequencies scaled
        ("GPTNeoX", {}),  # a quarter of the channels
        ("Phi", {}),  # half of the channels
        ("Cohere", {}),  # neighbouring channels
        ("Glm", {"head_dim": 8}),  # half of them, neighbouring
        ("Qwen3", {}),  # normed before they are turned
        ("SmolLM3", {}),  # none in every fourth layer
        ("Mistral", {"sliding_window": 16}),  # layers that see the last places alone
    ],
)
def test_keys_are_turned_to_where_the_model_would_put_them(name, settings):
    decoder = tiny(name, **settings)
    ids = torch.tensor([[5, 77, 200, 3, 150]])
    # Rotary attention sees differences of positions alone, so the same text further on has the
    # same hidden states, and keys that differ by the turn.
    here, there = keys_of(decoder, ids, 0), keys_of(decoder, ids, 90)

    for turn, before, after in zip(key_turns(decoder), here, there, strict=True):
        forth = torch.full((5,), 90)
        torch.testing.assert_close(turn(before, forth), after, atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(turn(after, -forth), before, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "settings", "got"),
    [
        ("OPT", {"word_embed_proj_dim": 32}, "no rotary frequency explains"),
        ("Mamba", {}, "LinearAttentionLayer"),
        ("Bamba", {}, "DynamicLayer, LinearAttentionLayer"),
        ("DeepseekV2", {}, "a latent cache"),
        ("Bloom", {}, "without positions"),
        ("Rwkv", {}, "keys of no layer"),
    ],
)
def test_a_base_whose_keys_cannot_be_moved_is_refused_with_the_way_out(name, settings, got):
    with pytest.raises(BaseModelError, match="cannot be moved") as caught:
        key_turns(tiny(name, **settings))
    assert got in str(caught.value.got)
    assert "model.memory: embeddings" in str(caught.value.fix)
