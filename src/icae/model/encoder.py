"""The encoder: the base model seen through LoRA, reading ``[context ; memory tokens]``.

Its last hidden states at the memory tokens become slots (`icae.model.slot_head`), or their keys
and values the memory itself (`icae.model.gist`).

Source: Ge et al. 2024, section 2.1.

Shape legend: B spans in the batch, L longest context, K most slots, S = longest L_i + K_i,
D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from icae.config.spans import chunk_of_tokens
from icae.config.types import PositionLayout, TokenIds
from icae.model.around import embed, run_layers
from icae.model.memory_tokens import MemoryTokens
from icae.model.positions import encoder_positions


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderBatch:
    """Padded encoder input for B spans, on one device.

    Attributes:
        ids_BS: Context ids; padding and memory places hold 0.
        positions_BS: Position of every place (padding repeats 0).
        slot_index_BS: Index of the slot at memory places, -1 elsewhere.
        chunk_BS: Index of the chunk at context places, K (one past the last) elsewhere.
        slots: K_i of each span.
    """

    ids_BS: Tensor
    positions_BS: Tensor
    slot_index_BS: Tensor
    chunk_BS: Tensor
    slots: tuple[int, ...]


def build_batch(
    spans: Sequence[TokenIds],
    slots: Sequence[int],
    layout: PositionLayout,
    device: torch.device,
    *,
    starts: Sequence[int] | None = None,
) -> EncoderBatch:
    """Lay out spans as ``[context ; memory tokens ; padding]`` rows, from `starts` (0) on."""
    size = max(len(ids) + k for ids, k in zip(spans, slots, strict=True))
    ids_BS = np.zeros((len(spans), size), dtype=np.int64)
    positions_BS = np.zeros_like(ids_BS)
    slot_index_BS = np.full_like(ids_BS, -1)
    chunk_BS = np.full_like(ids_BS, max(slots))
    for row, (ids, k) in enumerate(zip(spans, slots, strict=True)):
        length = len(ids)
        ids_BS[row, :length] = ids
        positions_BS[row, : length + k] = encoder_positions(layout, length, k)
        slot_index_BS[row, length : length + k] = np.arange(k)
        chunk_BS[row, :length] = chunk_of_tokens(length, k)
    if starts is not None:
        positions_BS += np.asarray(starts)[:, None]
    return EncoderBatch(
        ids_BS=torch.from_numpy(ids_BS).to(device),
        positions_BS=torch.from_numpy(positions_BS).to(device),
        slot_index_BS=torch.from_numpy(slot_index_BS).to(device),
        chunk_BS=torch.from_numpy(chunk_BS).to(device),
        slots=tuple(slots),
    )


def chunk_means(tokens_BSD: Tensor, chunk_BS: Tensor, slots: int) -> Tensor:
    """Mean vector of every chunk, [B, K, D] float32; of places in no chunk `chunk_BS` holds K."""
    rows, _, width = tokens_BSD.shape
    sums = tokens_BSD.new_zeros(rows, slots + 1, width, dtype=torch.float32)
    sums.scatter_add_(1, chunk_BS[..., None].expand(-1, -1, width), tokens_BSD.float())
    ones = torch.ones_like(chunk_BS, dtype=torch.float32)
    counts = sums.new_zeros(rows, slots + 1).scatter_add_(1, chunk_BS, ones)
    # A slot index past a row's own K has no places; its mean is never read.
    return sums[:, :slots] / counts[:, :slots, None].clamp(min=1)


def memory_inputs(
    adapted: PreTrainedModel, tokens: MemoryTokens, batch: EncoderBatch
) -> tuple[Tensor, Tensor]:
    """Inputs of a batch, and the mean input embedding of every chunk of its context.

    The inputs [B, S, D] have the memory tokens in place and the model's dtype; the means [B, K, D]
    are float32, without gradient.
    """
    tokens_BSD = embed(adapted, batch.ids_BS)
    memory_BSD = tokens.memory(batch.slot_index_BS.clamp(min=0)).to(tokens_BSD.dtype)
    is_memory_BS1 = (batch.slot_index_BS >= 0).unsqueeze(-1)
    means_BKD = chunk_means(tokens_BSD.detach(), batch.chunk_BS, max(batch.slots))
    return torch.where(is_memory_BS1, memory_BSD, tokens_BSD), means_BKD


def read_memory_tokens(
    adapted: PreTrainedModel, tokens: MemoryTokens, batch: EncoderBatch
) -> tuple[list[Tensor], Tensor]:
    """Last hidden states [K_i, D] at the memory tokens of each span, and the means of its chunks.

    The means are those of `memory_inputs`.
    """
    inputs_BSD, means_BKD = memory_inputs(adapted, tokens, batch)
    hidden_BSD = run_layers(adapted, inputs_BSD, batch.positions_BS)
    is_memory_BS = batch.slot_index_BS >= 0
    hidden = [hidden_BSD[row][is_memory_BS[row]] for row in range(len(batch.slots))]
    return hidden, means_BKD
