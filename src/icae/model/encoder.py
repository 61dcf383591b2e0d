"""The encoder: the base model seen through LoRA, reading ``[context ; memory tokens]``.

The encoder is a second module tree over the *same* parameter tensors as the decoder
(one copy in memory), wrapped by PEFT. The decoder's own tree never contains a LoRA
module, so it is the base model bit for bit at any time, also while gradient
checkpointing recomputes an encoder pass in the middle of a backward.

Shape legend: B spans in the batch, L longest context, K most slots, S = longest L_i + K_i,
D hidden size.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from icae.config import ModelConfig
from icae.config.spans import chunk_of_tokens
from icae.config.types import EncoderReading, FloatArray, TokenIds
from icae.errors import BaseModelError
from icae.model.memory_tokens import MemoryTokens, SlotHead
from icae.model.positions import encoder_positions

QV_NAMES = (("q_proj", "v_proj"), ("query_key_value",), ("q_lin", "v_lin"))
"""Names of the query and value projections: the Llama, Qwen2, Mistral, ... families;
GPT-NeoX and its kin, whose one fused projection holds query, key and value; others."""


def lora_target_modules(base: nn.Module, config: ModelConfig) -> list[str] | str:
    """Names of the modules that LoRA adapts in this base model.

    Raises:
        BaseModelError: If the attention projections have names we do not know.
    """
    if config.lora_targets == "all-linear":
        return "all-linear"
    names = {name.rsplit(".", 1)[-1] for name, _ in base.named_modules()}
    for candidates in QV_NAMES:
        if names.issuperset(candidates):
            return list(candidates)
    raise BaseModelError(
        f"Cannot find the query and value projections of {type(base).__name__}.",
        got=", ".join(sorted(n for n in names if "proj" in n or "attn" in n)) or "no known name",
        expected=" or ".join("+".join(c) for c in QV_NAMES),
        fix="Use model.lora_targets: all-linear, or a base with separate projections.",
    )


def share_weights(base: nn.Module) -> nn.Module:
    """A second module tree over the very same parameter and buffer tensors."""
    memo: dict[int, object] = {id(t): t for t in base.parameters()}
    memo.update({id(t): t for t in base.buffers()})
    return copy.deepcopy(base, memo)


def wrap_lora(base: nn.Module, config: ModelConfig) -> PeftModel:
    """The base model's weights seen through a fresh, trainable LoRA (float32)."""
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=lora_target_modules(base, config),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks transformers 5 by an attribute name that is being renamed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        return get_peft_model(share_weights(base), lora)


@dataclass(frozen=True, kw_only=True)
class EncoderBatch:
    """Padded encoder input for B spans, on one device.

    Attributes:
        ids_BS: Context ids; padding and memory places hold 0.
        positions_BS: Position of every place (padding repeats 0).
        slot_index_BS: Index of the slot at memory places, -1 elsewhere.
        chunk_BS: Index of the chunk at context places, K (one past the last) elsewhere.
        weight_BS: Weight of each context place in the mean embedding of its chunk.
        slots: K_i of each span.
    """

    ids_BS: Tensor
    positions_BS: Tensor
    slot_index_BS: Tensor
    chunk_BS: Tensor
    weight_BS: Tensor
    slots: tuple[int, ...]


def build_batch(
    spans: Sequence[TokenIds], slots: Sequence[int], config: ModelConfig, device: torch.device
) -> EncoderBatch:
    """Lay out spans as ``[context ; memory tokens ; padding]`` rows.

    Args:
        spans: Token ids of each span.
        slots: Slots K_i of each span.
        config: Architecture (layout and residual decay are read).
        device: Where the tensors go.
    """
    size = max(len(ids) + k for ids, k in zip(spans, slots, strict=True))
    ids_BS = np.zeros((len(spans), size), dtype=np.int64)
    positions_BS = np.zeros((len(spans), size), dtype=np.int64)
    slot_index_BS = np.full((len(spans), size), -1, dtype=np.int64)
    chunk_BS = np.full((len(spans), size), max(slots), dtype=np.int64)
    weight_BS = np.ones((len(spans), size), dtype=np.float32)
    for row, (ids, k) in enumerate(zip(spans, slots, strict=True)):
        length = len(ids)
        weight_BS[row, :length] = chunk_weights(length, k, config.residual_decay)
        ids_BS[row, :length] = ids
        positions_BS[row, : length + k] = encoder_positions(config.layout, length, k)
        slot_index_BS[row, length : length + k] = np.arange(k)
        chunk_BS[row, :length] = chunk_of_tokens(length, k)
    return EncoderBatch(
        ids_BS=torch.from_numpy(ids_BS).to(device),
        positions_BS=torch.from_numpy(positions_BS).to(device),
        slot_index_BS=torch.from_numpy(slot_index_BS).to(device),
        chunk_BS=torch.from_numpy(chunk_BS).to(device),
        weight_BS=torch.from_numpy(weight_BS).to(device),
        slots=tuple(slots),
    )


def chunk_weights(length: int, slots: int, decay: float) -> FloatArray:
    """Weight decay^i of the i-th token of its chunk, [length] float32; see `chunk_bounds`."""
    starts = np.arange(slots) * length // slots
    offsets = np.arange(length) - starts[chunk_of_tokens(length, slots)]
    return np.power(np.float32(decay), offsets.astype(np.float32))


def chunk_means(
    tokens_BSD: Tensor, chunk_BS: Tensor, slots: int, weight_BS: Tensor | None = None
) -> Tensor:
    """Mean vector of every chunk, [B, K, D] float32.

    Args:
        tokens_BSD: A vector of each place.
        chunk_BS: Chunk of each place; K where it lies in none.
        slots: The largest K of the batch.
        weight_BS: Weight of each place; None weighs all alike.
    """
    rows, _, width = tokens_BSD.shape
    weights = torch.ones_like(chunk_BS, dtype=torch.float32) if weight_BS is None else weight_BS
    sums = tokens_BSD.new_zeros(rows, slots + 1, width, dtype=torch.float32)
    weighted_BSD = tokens_BSD.float() * weights[..., None]
    sums.scatter_add_(1, chunk_BS[..., None].expand(-1, -1, width), weighted_BSD)
    totals = sums.new_zeros(rows, slots + 1).scatter_add_(1, chunk_BS, weights)
    # A slot index past a row's own K has no places; its mean is never read.
    return sums[:, :slots] / totals[:, :slots, None].clamp(min=1e-6)


def memory_inputs(
    lora: PeftModel, tokens: MemoryTokens, batch: EncoderBatch
) -> tuple[Tensor, Tensor]:
    """Input embeddings of a batch: of the ids alone, and with the memory tokens in place.

    Returns:
        Both [B, S, D]; at memory places the first holds the embedding of id 0.
    """
    tokens_BSD = lora.get_base_model().get_input_embeddings()(batch.ids_BS)
    memory_BSD = tokens.memory(batch.slot_index_BS.clamp(min=0)).to(tokens_BSD.dtype)
    is_memory_BS1 = (batch.slot_index_BS >= 0).unsqueeze(-1)
    return tokens_BSD, torch.where(is_memory_BS1, memory_BSD, tokens_BSD)


def read_memory_tokens(
    lora: PeftModel, tokens: MemoryTokens, batch: EncoderBatch
) -> tuple[list[Tensor], Tensor]:
    """Run the encoder over a batch of spans.

    The 2-D attention mask of ones is not decoration: without it transformers 5 reads
    positions that are not one run of +1 steps as packed sequences and cuts attention at
    every jump. Padding stands on the right, so causal attention alone keeps it out.

    Returns:
        Last hidden states [K_i, D] at each span's memory tokens, and the mean input
        embedding of every chunk [B, K, D].
    """
    tokens_BSD, inputs_BSD = memory_inputs(lora, tokens, batch)
    hidden_BSD = (
        lora.get_base_model()
        .base_model(
            inputs_embeds=inputs_BSD,
            attention_mask=torch.ones_like(batch.ids_BS),
            position_ids=batch.positions_BS,
            use_cache=False,
        )
        .last_hidden_state
    )
    is_memory_BS = batch.slot_index_BS >= 0
    hidden = [hidden_BSD[row][is_memory_BS[row]] for row in range(len(batch.slots))]
    return hidden, chunk_means(
        tokens_BSD.detach(), batch.chunk_BS, max(batch.slots), batch.weight_BS
    )


def read_chunk_means(lora: PeftModel, batch: EncoderBatch) -> tuple[list[Tensor], Tensor]:
    """Run the encoder over contexts alone, every token seeing every other of its span.

    The batch's memory places are padding here: no token attends to them.

    Returns:
        Mean last hidden state [K_i, D] of each span's chunks, and the mean input
        embedding of every chunk [B, K, D].
    """
    causal_lm = lora.get_base_model()
    tokens_BSD = causal_lm.get_input_embeddings()(batch.ids_BS)
    slots = max(batch.slots)
    # Attention masks in 4-D are taken as they are: 0 where a key may be seen.
    hidden_keys_BS = batch.chunk_BS == slots
    lowest = torch.finfo(tokens_BSD.dtype).min
    mask_BS = torch.zeros_like(hidden_keys_BS, dtype=tokens_BSD.dtype)
    mask_BS = mask_BS.masked_fill(hidden_keys_BS, lowest)
    size = batch.ids_BS.shape[1]
    hidden_BSD = causal_lm.base_model(
        inputs_embeds=tokens_BSD,
        attention_mask=mask_BS[:, None, None, :].expand(-1, 1, size, size),
        position_ids=batch.positions_BS,
        use_cache=False,
    ).last_hidden_state
    pooled_BKD = chunk_means(hidden_BSD, batch.chunk_BS, slots)
    hidden = [pooled_BKD[row, :k] for row, k in enumerate(batch.slots)]
    return hidden, chunk_means(tokens_BSD.detach(), batch.chunk_BS, slots, batch.weight_BS)


def read(
    lora: PeftModel, tokens: MemoryTokens, batch: EncoderBatch, reading: EncoderReading
) -> tuple[list[Tensor], Tensor]:
    """Last hidden states that become slots, and chunk means, as `reading` says."""
    if reading == "mean-pool":
        return read_chunk_means(lora, batch)
    return read_memory_tokens(lora, tokens, batch)


def encode(
    lora: PeftModel,
    tokens: MemoryTokens,
    head: SlotHead,
    batch: EncoderBatch,
    reading: EncoderReading = "memory-tokens",
) -> list[Tensor]:
    """Encode a batch of spans.

    Returns:
        Slots [K_i, D] of each span, float32.
    """
    hidden, mean_BKD = read(lora, tokens, batch, reading)
    return [
        head(hidden_KD[None], mean_BKD[row, :k][None])[0]
        for row, (hidden_KD, k) in enumerate(zip(hidden, batch.slots, strict=True))
    ]
