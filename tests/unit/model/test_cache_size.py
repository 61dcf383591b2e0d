"""The size of a cache is what is really held, whatever its layers keep."""

from __future__ import annotations

import pytest
import torch
from tests.bases.architectures import tiny
from transformers import DynamicCache

from icae.model.cache_size import CacheSize


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Llama", {}),
        ("Gemma2", {"sliding_window": 16}),
        ("GptOss", {"sliding_window": 8}),
        ("FalconH1", {}),
        ("Lfm2", {}),
        ("DeepseekV2", {}),
    ],
)
def test_figures_are_what_a_cache_of_that_many_places_holds(name, settings):
    decoder = tiny(name, **settings)
    cache = DynamicCache(config=decoder.config)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        decoder(input_ids=ids, past_key_values=cache, use_cache=True)
    parts = [p for own in cache.layers for p in torch.utils._pytree.tree_leaves(vars(own))]
    held = sum(p.nbytes for p in parts if isinstance(p, torch.Tensor) and p.is_floating_point())
    assert CacheSize.of(decoder).of_places(40) == held
