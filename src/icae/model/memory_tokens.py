"""The learned vectors: memory tokens, objective tokens, and the slot heads.

Shape legend: B rows (spans), K slots, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icae.config import ModelConfig
from icae.errors import ConfigError
from icae.types import OBJECTIVES, Objective


class MemoryTokens(nn.Module):
    """Learned encoder inputs of the memory tokens and decoder inputs of the objectives.

    Args:
        config: Architecture; `memory_embedding` and `max_slots` are read.
        embedding: The base model's input embedding matrix [V, D]; its mean and spread
            initialise every vector.
        generator: Source of randomness.
    """

    def __init__(self, config: ModelConfig, embedding: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.rows = 1 if config.memory_embedding == "shared" else config.max_slots
        table = embedding.detach().float().cpu()
        mean, std = table.mean(dim=0), table.std(dim=0)

        def draw(rows: int) -> nn.Parameter:
            noise = torch.randn(rows, table.shape[1], generator=generator)
            return nn.Parameter(mean + std * noise)

        self.memory_ND = draw(self.rows)
        self.objective_ND = draw(len(OBJECTIVES))

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
        """The embedding [D] of the [AE], [LM] or [FT] token, float32."""
        return self.objective_ND[OBJECTIVES.index(objective)]


def rms(tensor: Tensor) -> float:
    """Root mean square of all elements."""
    return float(tensor.detach().float().pow(2).mean().sqrt())


class SlotHead(nn.Module):
    """Turns last hidden states at the memory tokens into slots, by the named setting.

    Args:
        config: Architecture; `slot_head` and `residual_scale` are read.
        embedding_rms: RMS of the input embeddings, the scale slots should have.
        hidden_rms: RMS of the base model's final hidden states.
        hidden_size: D.
    """

    def __init__(
        self, config: ModelConfig, *, embedding_rms: float, hidden_rms: float, hidden_size: int
    ) -> None:
        super().__init__()
        unit = embedding_rms / hidden_rms
        self.kind = config.slot_head
        if self.kind == "gain":
            self.scale = nn.Parameter(torch.tensor(unit))
        elif self.kind == "residual":
            self.scale = nn.Parameter(torch.tensor(unit * config.residual_scale))
        elif self.kind == "linear":
            self.weight_DD = nn.Parameter(torch.eye(hidden_size) * unit)

    def forward(self, hidden_BKD: Tensor, chunk_mean_BKD: Tensor) -> Tensor:
        """Slots [B, K, D] in float32.

        Args:
            hidden_BKD: Last hidden states (after the final norm) at the memory tokens.
            chunk_mean_BKD: Mean input embedding of each slot's chunk of the context.
        """
        hidden_BKD = hidden_BKD.float()
        if self.kind == "plain":
            return hidden_BKD
        if self.kind == "linear":
            return hidden_BKD @ self.weight_DD.T
        scaled_BKD = hidden_BKD * self.scale
        return scaled_BKD + chunk_mean_BKD.float() if self.kind == "residual" else scaled_BKD
