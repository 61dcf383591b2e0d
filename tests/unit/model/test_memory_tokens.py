from __future__ import annotations

import pytest
import torch

from icae.config import ModelConfig
from icae.errors import ConfigError
from icae.model.memory_tokens import MemoryTokens

TABLE = torch.randn(500, 8, generator=torch.Generator().manual_seed(2)) * 0.1


def make_tokens(**settings):
    return MemoryTokens(ModelConfig(**settings), TABLE, torch.Generator().manual_seed(0))


def test_tokens_start_with_the_statistics_of_the_embedding():
    drawn = make_tokens(memory_embedding="per-slot", max_slots=2000).memory_ND.detach()
    assert torch.allclose(drawn.mean(dim=0), TABLE.mean(dim=0), atol=0.01)
    assert torch.allclose(drawn.std(dim=0), TABLE.std(dim=0), rtol=0.1)


def test_a_shared_embedding_serves_any_number_of_slots_and_others_go_by_slot_index():
    shared = make_tokens(memory_embedding="shared", max_slots=2)
    assert torch.equal(shared.memory(torch.arange(700)[None])[0], shared.memory_ND.expand(700, -1))
    tokens = make_tokens(memory_embedding="per-slot", max_slots=4)
    assert torch.equal(tokens.memory(torch.tensor([[3, 0]]))[0], tokens.memory_ND[[3, 0]])
    with pytest.raises(ConfigError, match="memory embeddings") as caught:
        tokens.memory(torch.tensor([[0, 4]]))
    assert caught.value.got == "5 slots"
    assert "4" in str(caught.value.expected)
