from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from icae.config.types import POSITION_LAYOUTS
from icae.model.encoder import build_batch

SETTINGS = list(itertools.product(POSITION_LAYOUTS, ("plain", "residual"), ("shared", "per-slot")))


def slots_of(model: Any, spans: list[Any], counts: list[int]) -> list[torch.Tensor]:
    with torch.no_grad():
        return model.encode_spans(spans, counts)


def hidden_at_memory_tokens(model: Any, ids: Any, slots: int, mask: Any) -> torch.Tensor:
    """The encoder written out by hand for one span, with any attention mask."""
    batch = build_batch([ids], [slots], model.config.layout, model.device)
    encoder = model.lora.get_base_model()
    memory = model.tokens.memory(torch.arange(slots)[None])
    embeds = torch.cat([encoder.get_input_embeddings()(torch.as_tensor(ids)[None]), memory], dim=1)
    with torch.no_grad():
        out = encoder.base_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=batch.positions_BS,
            use_cache=False,
        )
    return out.last_hidden_state[0, len(ids) :]


def test_without_a_mask_transformers_cuts_attention_at_position_jumps(build_model, random_ids):
    """The trap that the mask of ones avoids.

    Positions 0..15, 1, 5, 9, 13 without a mask are read as five packed sequences, so a
    slot sees nothing but its own memory token. If this fails, transformers has changed
    and the mask in `encode` and `score` may no longer be needed.
    """
    model = build_model(layout="uniform-encoder", slot_head="plain")
    ids = random_ids(16)
    changed = ids.copy()
    changed[0] += 1
    ones = torch.ones(1, 20, dtype=torch.long)

    cut = [hidden_at_memory_tokens(model, x, 4, None) for x in (ids, changed)]
    whole = [hidden_at_memory_tokens(model, x, 4, ones) for x in (ids, changed)]

    assert torch.equal(cut[0], cut[1])
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)
    assert torch.equal(whole[0], slots_of(model, [ids], [4])[0])


def test_plain_slots_are_the_hidden_states_after_the_final_norm(family, build_model, random_ids):
    model = build_model(family, layout="default", slot_head="plain")
    ids = random_ids(9)
    encoder = model.lora.get_base_model()
    norm = encoder.base_model.final_layer_norm if "neox" in family else encoder.base_model.norm
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_hook(lambda module, inputs, out: seen.append(out))
    slots = slots_of(model, [ids], [3])[0]
    handle.remove()

    assert torch.equal(slots, seen[0][0, 9:])
    # Default positions are one run of +1 steps: the whole causal LM gives the same states.
    expected = hidden_at_memory_tokens(model, ids, 3, torch.ones(1, 12, dtype=torch.long))
    assert torch.equal(slots, expected)


@pytest.mark.parametrize(("layout", "head", "embedding"), SETTINGS)
def test_padding_and_batch_size_leave_slots_unchanged_and_the_first_token_reaches_all(
    build_model, random_ids, layout, head, embedding
):
    model = build_model(layout=layout, slot_head=head, memory_embedding=embedding)
    lengths, counts = [16, 5, 11, 1, 16], [4, 5, 3, 1, 16]
    spans = [random_ids(n, seed) for seed, n in enumerate(lengths)]

    together = slots_of(model, spans, counts)

    for i, count in enumerate(counts):
        alone = slots_of(model, [spans[i]], [count])[0]
        assert together[i].shape == (count, 32)
        assert torch.allclose(together[i], alone, atol=1e-5, rtol=1e-5), i
    changed = spans[0].copy()
    changed[0] += 1
    other = slots_of(model, [changed], counts[:1])[0]
    assert ((together[0] - other).abs().amax(dim=1) > 1e-3).all()
