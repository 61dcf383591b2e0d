from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from icae.model.objectives import Sample, autoencoding, continuation


@pytest.fixture
def pair(build_model):
    """``pair(**config)``: both models with the same weights, moved away from their start."""
    return lambda **settings: (
        build_model(method="autocompressor", **settings),
        build_model(**settings),
    )


def text(ids: Callable[..., Any], length: int) -> Sample:
    context = ids(length)
    return Sample(
        context_ids=context, ratio=4.0, tasks=(autoencoding(context), continuation(ids(5)))
    )


def encoded(model: Any, spans: Sequence[Any]) -> torch.Tensor:
    """Slots at 4x of a context of whole spans."""
    (memory,) = model.encode([np.concatenate(spans)], [4.0])
    return memory.slots_KD


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"framing": "around", "objective_tokens": 2},
        {"slot_head": "plain", "layout": "default", "memory_embedding": "per-slot"},
    ],
)
def test_one_segment_is_the_autoencoder(pair, random_ids, settings):
    compressor, autoencoder = pair(**settings)
    samples = [text(random_ids, 16), text(random_ids, 9)]
    with torch.no_grad():
        for one, other in zip(compressor(samples), autoencoder(samples), strict=True):
            torch.testing.assert_close(one.log_probs_T, other.log_probs_T, atol=2e-5, rtol=1e-4)


def test_a_segment_is_read_behind_the_summaries_of_all_before_it(pair, random_ids):
    compressor, _ = pair(layout="default", slot_head="plain")
    spans = [random_ids(16, seed) for seed in range(3)]
    with torch.no_grad():
        made = encoded(compressor, spans)
        read = compressor.decoder.get_input_embeddings()(torch.from_numpy(spans[2]))
        inputs = torch.cat([made[:8], read, compressor.tokens.memory(torch.arange(4))])
        hidden = (
            compressor.lora.get_base_model()
            .base_model(inputs_embeds=inputs[None], use_cache=False)
            .last_hidden_state[0, -4:]
        )
    torch.testing.assert_close(made[8:], hidden, atol=2e-5, rtol=1e-4)


def test_earlier_segments_change_later_summaries_and_not_the_other_way_round(pair, random_ids):
    compressor, autoencoder = pair()
    first, second, other = (random_ids(16, seed) for seed in range(3))
    with torch.no_grad():
        for model, recursive in ((compressor, True), (autoencoder, False)):
            made = encoded(model, [first, second])
            changed = encoded(model, [other, second])
            later = encoded(model, [first, other])
            assert ((made[4:] - changed[4:]).abs().max() > 1e-3) == recursive
            torch.testing.assert_close(made[:4], later[:4], atol=2e-5, rtol=1e-4)
