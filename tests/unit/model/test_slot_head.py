from __future__ import annotations

import pytest
import torch

from icae.config import ModelConfig
from icae.model.icae import rms
from icae.model.slot_head import SlotHead

D = 8
HIDDEN = torch.randn(1, 3, D, generator=torch.Generator().manual_seed(0))
MEANS = torch.randn(1, 3, D, generator=torch.Generator().manual_seed(1))


def test_heads_pass_hidden_states_on_or_add_half_the_embedding_scale_to_the_chunk_mean():
    plain, residual = (
        SlotHead(ModelConfig(slot_head=kind), embedding_rms=0.5, hidden_size=D)
        for kind in ("plain", "residual")
    )
    plain.calibrate(HIDDEN[0])
    assert torch.equal(plain(HIDDEN, MEANS), HIDDEN)
    assert not list(plain.parameters())
    assert torch.allclose(residual(HIDDEN, MEANS), MEANS + 0.25 * HIDDEN)
    for head in (plain, residual):
        assert head(HIDDEN.bfloat16(), MEANS.bfloat16()).dtype == torch.float32


def test_residual_slots_at_gain_zero_are_means_of_input_embeddings(build_model, random_ids):
    model = build_model()
    torch.nn.init.zeros_(model.head.gain_D)
    torch.nn.init.zeros_(model.head.shift_D)
    ids = random_ids(5)

    with torch.no_grad():
        slots = model.encode_spans([ids], [2])[0]

    table = model.decoder.get_input_embeddings().weight
    expected = torch.stack([table[ids[:2]].mean(dim=0), table[ids[2:]].mean(dim=0)])
    assert torch.allclose(slots, expected, atol=1e-6)


def test_calibrating_a_model_measures_the_hidden_states_of_its_spans(build_model, random_ids):
    model = build_model(trained=False)
    spans = [random_ids(16, seed) for seed in range(8)]

    model.calibrate(spans, [8] * 8)
    torch.nn.init.zeros_(model.head.gain_D)
    with torch.no_grad():
        means = torch.cat(model.encode_spans(spans, [8] * 8))
        torch.nn.init.ones_(model.head.gain_D)
        parts = torch.cat(model.encode_spans(spans, [8] * 8)) - means

    scale = rms(model.decoder.get_input_embeddings().weight)
    assert rms(parts) == pytest.approx(0.5 * scale, rel=0.05)
    assert float(parts.mean(dim=0).abs().max()) < 1e-5
