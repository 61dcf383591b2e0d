from __future__ import annotations

from typing import Any

import pytest
import torch

from icae.config import ModelConfig
from icae.errors import ConfigError
from icae.model.memory_tokens import MemoryTokens

D = 8


def make_tokens(table: torch.Tensor, **settings: Any) -> MemoryTokens:
    return MemoryTokens(ModelConfig(**settings), table, torch.Generator().manual_seed(0))


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


def test_per_slot_embeddings_go_by_slot_index_and_end_at_max_slots() -> None:
    tokens = make_tokens(torch.randn(9, D), memory_embedding="per-slot", max_slots=4)

    assert torch.equal(tokens.memory(torch.tensor([[3, 0]]))[0], tokens.memory_ND[[3, 0]])
    with pytest.raises(ConfigError, match="memory embeddings") as caught:
        tokens.memory(torch.tensor([[0, 4]]))
    assert caught.value.got == "5 slots"
    assert "4" in str(caught.value.expected)
