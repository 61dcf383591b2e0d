"""The learned vectors: memory tokens, objective tokens, and the slot heads.

Shape legend: B rows (spans), K slots, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icae.config import ModelConfig
from icae.config.types import OBJECTIVES, Objective
from icae.errors import ConfigError

SAMPLED_ROWS = 8192
"""Embedding rows whose mean and spread initialise the learned vectors."""


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
        sample = embedding.detach()[:: max(1, len(embedding) // SAMPLED_ROWS)]
        table = sample.float().cpu()
        mean, std = table.mean(dim=0), table.std(dim=0)

        def draw(rows: int) -> nn.Parameter:
            noise = torch.randn(rows, table.shape[1], generator=generator)
            return nn.Parameter(mean + std * noise)

        self.memory_ND = draw(self.rows)
        self.objective_tokens = config.objective_tokens
        self.objective_ND = draw(len(OBJECTIVES) * config.objective_tokens)

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
        """The embeddings [M, D] of the [AE], [LM] or [FT] tokens, float32."""
        first = OBJECTIVES.index(objective) * self.objective_tokens
        return self.objective_ND[first : first + self.objective_tokens]


def rms(tensor: Tensor) -> float:
    """Root mean square of all elements."""
    return float(tensor.detach().float().pow(2).mean().sqrt())


class SlotHead(nn.Module):
    """Turns last hidden states at the memory tokens into slots, by the named setting.

    Final hidden states have a large part that is the same for every memory token, in a few
    outlier channels. Scaled to the embeddings as they are, that part drowns what differs
    from slot to slot. So every head but ``plain`` first standardises each channel with
    statistics measured once (`calibrate`), then applies a learned gain and shift for each
    channel. Without calibration the standardisation only multiplies by the embedding scale.

    Args:
        config: Architecture; `slot_head` and `residual_scale` are read.
        embedding_rms: RMS of the input embeddings, the scale slots should have.
        hidden_size: D.
    """

    mean_D: Tensor
    unit_D: Tensor

    def __init__(self, config: ModelConfig, *, embedding_rms: float, hidden_size: int) -> None:
        super().__init__()
        self.kind = config.slot_head
        self.embedding_rms = embedding_rms
        if self.kind == "plain":
            return
        self.size = embedding_rms * (config.residual_scale if self.kind == "residual" else 1.0)
        self.register_buffer("mean_D", torch.zeros(hidden_size))
        self.register_buffer("unit_D", torch.full((hidden_size,), self.size))
        self.shift_D = nn.Parameter(torch.zeros(hidden_size))
        if self.kind == "linear":
            self.weight_DD = nn.Parameter(torch.eye(hidden_size))
        else:
            self.gain_D = nn.Parameter(torch.ones(hidden_size))

    @torch.no_grad()
    def calibrate(self, hidden_ND: Tensor) -> None:
        """Measure mean and spread of each channel over hidden states [N, D], N >= 2."""
        if self.kind == "plain":
            return
        hidden_ND = hidden_ND.float()
        self.mean_D.copy_(hidden_ND.mean(dim=0))
        self.unit_D.copy_(self.size / hidden_ND.std(dim=0).clamp(min=1e-6))

    def forward(self, hidden_BKD: Tensor, chunk_mean_BKD: Tensor) -> Tensor:
        """Slots [B, K, D] in float32.

        Args:
            hidden_BKD: Last hidden states (after the final norm) at the memory tokens.
            chunk_mean_BKD: Mean input embedding of each slot's chunk of the context.
        """
        hidden_BKD = hidden_BKD.float()
        if self.kind == "plain":
            return hidden_BKD
        scaled_BKD = (hidden_BKD - self.mean_D) * self.unit_D
        if self.kind == "linear":
            return scaled_BKD @ self.weight_DD.T + self.shift_D * self.embedding_rms
        scaled_BKD = scaled_BKD * self.gain_D + self.shift_D * self.embedding_rms
        return scaled_BKD + chunk_mean_BKD.float() if self.kind == "residual" else scaled_BKD
