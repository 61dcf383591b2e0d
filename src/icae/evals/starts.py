"""Slots that refinement starts from: the encoder's, chunk means, noise.

Shape legend: K slots, D hidden size, L tokens of a span.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from icae.config.spans import chunk_of_tokens, slot_count
from icae.config.types import FloatArray, TokenIds
from icae.decode.torch import TorchRuntime
from icae.evals.memories import ContextMemory, Tick, encode_contexts
from icae.model import IcaeModel
from icae.model.encoder import chunk_means

STARTS = ("encoder", "chunk-means", "noise")
"""What slots are refined from."""


def start_memories(
    runtime: TorchRuntime,
    contexts: Sequence[TokenIds],
    start: str,
    *,
    ratio: float,
    seed: int,
    tick: Tick,
) -> list[ContextMemory]:
    """Slots to refine from; every context is one span.

    Args:
        runtime: Holds the model.
        contexts: Token ids of each span, at most the adapter's span length.
        start: One of `STARTS`.
        ratio: Context tokens per slot.
        seed: Seed of the noise.
        tick: Called with the tokens of each encoder pass.
    """
    if start == "encoder":
        return encode_contexts(runtime, contexts, ratio=ratio, tick=tick)
    counts = [slot_count(len(ids), ratio) for ids in contexts]
    if start == "chunk-means":
        made = [mean_slots(runtime.model, ids, k) for ids, k in zip(contexts, counts, strict=True)]
    else:
        made = [noise_slots(runtime.model, k, seed=(seed, i)) for i, k in enumerate(counts)]
    return [
        ContextMemory(slots_KD=slots_KD, spans=((len(ids), len(slots_KD)),))
        for ids, slots_KD in zip(contexts, made, strict=True)
    ]


@torch.inference_mode()
def mean_slots(model: IcaeModel, ids: TokenIds, slots: int) -> FloatArray:
    """The mean input embedding of each chunk of a span, all tokens alike.

    Args:
        model: Holds the embeddings.
        ids: Token ids of the span, int64 [L].
        slots: Slots K.

    Returns:
        Slots [K, D], float32.
    """
    tokens_LD = model.decoder.get_input_embeddings()(torch.from_numpy(ids).to(model.device))
    chunk_L = torch.from_numpy(chunk_of_tokens(len(ids), slots)).to(model.device)
    means_KD: FloatArray = chunk_means(tokens_LD[None], chunk_L[None], slots)[0].cpu().numpy()
    return means_KD


def noise_slots(model: IcaeModel, slots: int, *, seed: tuple[int, ...]) -> FloatArray:
    """Normal noise of the RMS of the input embeddings.

    Args:
        model: Holds the embeddings.
        slots: Slots K.
        seed: Seed of the noise; the slots of a smaller K are the first ones of a larger.

    Returns:
        Slots [K, D], float32.
    """
    width = model.decoder.get_input_embeddings().weight.shape[1]
    noise_KD = np.random.default_rng(seed).standard_normal((slots, width), dtype=np.float32)
    return noise_KD * np.float32(model.embedding_rms)
