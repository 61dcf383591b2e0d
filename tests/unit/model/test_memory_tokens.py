from __future__ import annotations

from typing import Any

import pytest
import torch

from icae.config import ModelConfig
from icae.errors import ConfigError
from icae.model.memory_tokens import MemoryTokens, SlotHead, rms

D = 8


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(1, 3, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def means() -> torch.Tensor:
    return torch.randn(1, 3, D, generator=torch.Generator().manual_seed(1))


def make_head(kind: str, **settings: Any) -> SlotHead:
    config = ModelConfig(slot_head=kind, **settings)  # type: ignore[arg-type]
    return SlotHead(config, embedding_rms=0.5, hidden_size=D)


def make_tokens(table: torch.Tensor, **settings: Any) -> MemoryTokens:
    return MemoryTokens(ModelConfig(**settings), table, torch.Generator().manual_seed(0))


def test_the_plain_head_passes_hidden_states_through(
    hidden: torch.Tensor, means: torch.Tensor
) -> None:
    head = make_head("plain")

    assert torch.equal(head(hidden, means), hidden)
    assert not list(head.parameters())


def test_the_gain_head_multiplies_by_the_embedding_scale_until_calibrated(
    hidden: torch.Tensor, means: torch.Tensor
) -> None:
    assert torch.equal(make_head("gain")(hidden, means), hidden * 0.5)


@pytest.mark.parametrize("kind", ["gain", "linear"])
def test_calibration_removes_the_common_part_and_sets_the_scale(
    kind: str, means: torch.Tensor
) -> None:
    head = make_head(kind)
    spread = torch.linspace(0.1, 30.0, D)
    sample = torch.randn(64, D, generator=torch.Generator().manual_seed(2)) * spread + 20.0

    head.calibrate(sample)
    slots = head(sample[None], torch.zeros(1, 64, D))[0]

    assert torch.allclose(slots.mean(dim=0), torch.zeros(D), atol=1e-4)
    assert torch.allclose(slots.std(dim=0), torch.full((D,), 0.5), atol=1e-4)


def test_the_residual_head_adds_a_share_of_the_scale_to_the_chunk_mean(
    hidden: torch.Tensor, means: torch.Tensor
) -> None:
    head = make_head("residual", residual_scale=0.1)
    assert torch.allclose(head(hidden, means), means + 0.05 * hidden)

    torch.nn.init.zeros_(head.gain_D)
    assert torch.equal(head(hidden, means), means)


def test_the_shift_is_counted_in_embedding_scales(
    hidden: torch.Tensor, means: torch.Tensor
) -> None:
    for kind in ("gain", "residual", "linear"):
        head = make_head(kind)
        before = head(hidden, means)
        torch.nn.init.ones_(head.shift_D)
        assert torch.allclose(head(hidden, means), before + 0.5)


def test_the_linear_head_starts_as_a_scaled_identity(
    hidden: torch.Tensor, means: torch.Tensor
) -> None:
    head = make_head("linear")
    assert torch.allclose(head(hidden, means), hidden * 0.5)

    with torch.no_grad():
        head.weight_DD.zero_()[0, 1] = 1.0  # output 0 reads input 1
    assert torch.equal(head(hidden, means)[..., 0], hidden[..., 1] * 0.5)


def test_heads_compute_in_float32(hidden: torch.Tensor, means: torch.Tensor) -> None:
    for kind in ("plain", "gain", "residual", "linear"):
        out = make_head(kind)(hidden.bfloat16(), means.bfloat16())
        assert out.dtype == torch.float32


def test_residual_slots_at_scale_zero_are_means_of_input_embeddings(
    build_model: Any, random_ids: Any
) -> None:
    model = build_model(slot_head="residual")
    torch.nn.init.zeros_(model.head.gain_D)
    torch.nn.init.zeros_(model.head.shift_D)
    ids = random_ids(5)

    with torch.no_grad():
        slots = model.encode_spans([ids], [2])[0]

    table = model.decoder.get_input_embeddings().weight
    expected = torch.stack([table[ids[:2]].mean(dim=0), table[ids[2:]].mean(dim=0)])
    assert torch.allclose(slots, expected, atol=1e-6)


def test_calibrating_a_model_brings_slots_to_the_embedding_scale(
    build_model: Any, random_ids: Any
) -> None:
    model = build_model(slot_head="gain", trained=False)
    spans = [random_ids(16) for _ in range(8)]

    model.calibrate(spans, [8] * 8)
    with torch.no_grad():
        slots = torch.cat(model.encode_spans(spans, [8] * 8))

    assert rms(slots) == pytest.approx(rms(model.decoder.get_input_embeddings().weight), rel=0.05)
    assert float(slots.mean(dim=0).abs().max()) < 1e-5


def test_tokens_start_with_the_statistics_of_the_embedding() -> None:
    table = torch.randn(500, D, generator=torch.Generator().manual_seed(2)) * 0.1
    table[:, 3] += 5.0
    table[:, 4] *= 20
    tokens = make_tokens(table, memory_embedding="per-slot", max_slots=2000)

    drawn = tokens.memory_ND.detach()
    assert torch.allclose(drawn.mean(dim=0), table.mean(dim=0), atol=0.2)
    assert torch.allclose(drawn.std(dim=0), table.std(dim=0), rtol=0.1)


def test_a_shared_embedding_serves_any_number_of_slots() -> None:
    tokens = make_tokens(torch.randn(9, D), memory_embedding="shared", max_slots=2)

    out = tokens.memory(torch.arange(700)[None])

    assert out.shape == (1, 700, D)
    assert (out == tokens.memory_ND[0]).all()


def test_per_slot_embeddings_go_by_slot_index() -> None:
    tokens = make_tokens(torch.randn(9, D), memory_embedding="per-slot", max_slots=4)

    assert torch.equal(tokens.memory(torch.tensor([[3, 0]]))[0], tokens.memory_ND[[3, 0]])


def test_per_slot_embeddings_refuse_more_than_max_slots(build_model: Any, random_ids: Any) -> None:
    model = build_model(memory_embedding="per-slot", max_slots=4)

    assert len(model.encode_spans([random_ids(16)], [4])[0]) == 4
    with pytest.raises(ConfigError, match="memory embeddings") as caught:
        model.encode_spans([random_ids(16)], [5])
    assert caught.value.got == "5 slots"
    assert "4" in str(caught.value.expected)


def test_each_objective_has_its_own_embedding() -> None:
    tokens = make_tokens(torch.randn(9, D))

    rows = [tokens.objective(name) for name in ("ae", "lm", "ft")]
    assert torch.cat(rows).tolist() == tokens.objective_ND.tolist()
    assert len({tuple(row[0].tolist()) for row in rows}) == 3


def test_rms_matches_a_hand_computed_one() -> None:
    assert rms(torch.tensor([3.0, 4.0, 0.0, 0.0])) == pytest.approx(2.5)


def test_the_same_seed_draws_the_same_model(build_model: Any) -> None:
    one, two = (build_model(trained=False).trainable() for _ in range(2))

    assert all(torch.equal(one[name], two[name]) for name in one)
