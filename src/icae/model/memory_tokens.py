"""The learned vectors: memory tokens, which the encoder reads, and objective tokens.

Shape legend: B rows (spans), K slots, N learned vectors, M objective tokens, D hidden size,
V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icae.config import ModelConfig
from icae.config.types import OWN_TOKENS, Objective
from icae.errors import ConfigError

SAMPLED_ROWS = 8192
"""Embedding rows whose mean and spread initialise the learned vectors."""


class MemoryTokens(nn.Module):
    """Learned encoder inputs of the memory tokens and decoder inputs of the objectives.

    Mean and spread of the base model's input embeddings [V, D] initialise every vector.
    """

    def __init__(self, config: ModelConfig, embedding: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.rows = 1 if config.memory_embedding == "shared" else config.max_slots
        sample = embedding.detach()[:: max(1, len(embedding) // SAMPLED_ROWS)]
        table = sample.float().cpu()
        mean, std = table.mean(dim=0), table.std(dim=0)

        def draw(rows: int) -> nn.Parameter:
            noise = torch.randn(rows, table.shape[1], generator=generator)
            return nn.Parameter(mean + std * noise)

        self.memory_ND = draw(self.rows)
        self.objective_rows = config.objective_rows
        self.objective_ND = draw(len(OWN_TOKENS) * config.objective_rows)

    def memory(self, slot_index_BK: Tensor) -> Tensor:
        """Memory-token embeddings for slot indices [B, K]: [B, K, D], float32."""
        if self.rows == 1:
            return self.memory_ND[torch.zeros_like(slot_index_BK)]
        most = int(slot_index_BK.max()) + 1
        if most > self.rows:
            raise ConfigError(
                "A span needs more slots than this adapter has memory embeddings.",
                got=f"{most} slots",
                expected=f"at most {self.rows} (model.max_slots)",
                fix="Use a higher ratio or shared memory embeddings.",
            )
        return self.memory_ND[slot_index_BK]

    def objective(self, objective: Objective) -> Tensor:
        """The embeddings [M, D] of the [AE], [LM] or [FT] tokens, float32.

        With framing ``between`` [2 M, D]: those before the memory, then those behind it.
        """
        first = OWN_TOKENS.index(objective) * self.objective_rows
        return self.objective_ND[first : first + self.objective_rows]
