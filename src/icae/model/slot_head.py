"""From the last hidden state at a memory token to a slot.

Shape legend: B rows (spans), K slots, N hidden states of a sample, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icae.config import ModelConfig

RESIDUAL_SCALE = 0.5
"""Size of the hidden state's part of a ``residual`` slot at the start, in embedding scales."""


class SlotHead(nn.Module):
    """Turns last hidden states into slots, as `slot_head` of the config says.

    ``plain`` passes them on, as in the paper. ``residual`` adds to the mean input embedding of
    the slot's chunk. Final hidden states have a large part that is the same for every memory
    token, in a few outlier channels, which would drown what differs from slot to slot; so the
    head first standardises each channel with statistics measured once (`calibrate`), then
    applies a learned gain and shift for each. Uncalibrated it only multiplies by the scale.

    Args:
        embedding_rms: RMS of the input embeddings, the scale slots should have.
    """

    mean_D: Tensor
    unit_D: Tensor

    def __init__(self, config: ModelConfig, *, embedding_rms: float, hidden_size: int) -> None:
        super().__init__()
        self.plain = config.slot_head == "plain"
        self.embedding_rms = embedding_rms
        self.size = embedding_rms * RESIDUAL_SCALE
        if not self.plain:
            self.register_buffer("mean_D", torch.zeros(hidden_size))
            self.register_buffer("unit_D", torch.full((hidden_size,), self.size))
            self.shift_D = nn.Parameter(torch.zeros(hidden_size))
            self.gain_D = nn.Parameter(torch.ones(hidden_size))

    @torch.no_grad()
    def calibrate(self, hidden_ND: Tensor) -> None:
        """Measure mean and spread of each channel over hidden states [N, D], N >= 2."""
        if not self.plain:
            hidden_ND = hidden_ND.float()
            self.mean_D.copy_(hidden_ND.mean(dim=0))
            self.unit_D.copy_(self.size / hidden_ND.std(dim=0).clamp(min=1e-6))

    def forward(self, hidden_BKD: Tensor, chunk_mean_BKD: Tensor) -> Tensor:
        """Slots [B, K, D] in float32."""
        hidden_BKD = hidden_BKD.float()
        if self.plain:
            return hidden_BKD
        scaled_BKD = (hidden_BKD - self.mean_D) * self.unit_D
        scaled_BKD = scaled_BKD * self.gain_D + self.shift_D * self.embedding_rms
        return scaled_BKD + chunk_mean_BKD.float()
