"""What memories of many documents cost: positions, bytes, FLOP, questions to break even.

Every formula stands here, with its source; nothing is timed, and only the ``config.json`` of the
decoder is read. ``docs/planning.md`` and the tests set them beside measured points.

Shapes: L tokens of a span, K slots of it, T tokens of a document, D hidden, V vocabulary,
M objective tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from icae.config import ModelConfig
from icae.config.spans import check_ratio
from icae.errors import BaseModelError
from icae.memory import (
    Memory,
    MemoryDocument,
    Provenance,
    Span,
    TokenFidelity,
    Unread,
    memory_size,
)
from icae.memory.provenance import KEY_VALUE_DTYPE, SlotDtype
from icae.model.objectives import PROBE_FOUND, PROBE_GIVEN
from icae.model.sizes import ModelSizes

TEXT_BYTES_PER_TOKEN = 1.9
"""Bytes of compressed text a token, in files that keep it (docs/planning.md)."""

MEASURED_TFLOPS = 0.22
"""What two CPU cores sustain in bfloat16, TFLOP/s.

Source: docs/results/bench, AMD EPYC, 2 threads: 2,048 tokens read at 776 tokens a second.
"""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A document that is to be compressed, and how it is used; numbers are above 0.

    Attributes:
        tokens: T, tokens of the document.
        ratio: Context tokens per slot.
        model: Architecture of the adapter; spans, LoRA and objective tokens are read.
        dtype: Precision of the key-value cache, and of slots that are embeddings.
        verified: Whether its fidelity is measured.
        text_bytes: Bytes of compressed text kept beside the slots, a token; 0: none is kept.
        question_tokens: Tokens of a question with its prompt.
        answer_tokens: Tokens of an answer.

    Raises:
        ConfigError: If the ratio is out of range.
    """

    tokens: int
    ratio: float = 4.0
    model: ModelConfig
    dtype: SlotDtype = "bfloat16"
    verified: bool = True
    text_bytes: float = TEXT_BYTES_PER_TOKEN
    question_tokens: int = 24
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    @property
    def in_pairs(self) -> bool:
        """Whether slots are keys and values."""
        return self.model.memory == "key-values"

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """(tokens L, slots K) of each span of one document (`icae.config.spans.plan_spans`)."""
        plans = self.model.plan(self.tokens, self.ratio)
        return tuple((plan.length, plan.slots) for plan in plans)


@dataclass(frozen=True, kw_only=True)
class Both:
    """A figure of the full text, and of the slots in its place."""

    full: float
    slots: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one document costs.

    Attributes:
        slots: Slots: the decoder positions that its memory takes.
        kv_bytes: Bytes of key-value cache.
        file_bytes: Size of its memory file.
        compress_tflop: TFLOP to compress it and to measure its fidelity.
        question_tflop: TFLOP to answer one question: from its text, read anew, and from its
            slots, their cache kept.
        break_even_questions: Questions from which on compressing has paid, against its text
            read anew for each; None if it never does.
    """

    spans: int
    slots: int
    kv_bytes: Both
    file_bytes: int
    compress_tflop: float
    question_tflop: Both
    break_even_questions: float | None


def plan(sizes: ModelSizes, workload: Workload) -> Plan:
    """Work out what memories cost."""
    if workload.in_pairs and sizes.key_values is None:
        raise BaseModelError(
            "The model's layers keep no keys and values of one shape.",
            expected="an adapter whose memories are input embeddings (model.memory: embeddings)",
        )
    slots = sum(k for _, k in workload.spans)
    compress = encode_flop(sizes, workload)
    if workload.verified:
        compress += verify_flop(sizes, workload)
    full = read_flop(sizes, 0, workload.tokens) + question_flop(sizes, workload, workload.tokens)
    held = question_flop(sizes, workload, slots + workload.model.lead_slots)
    reading = 0.0 if workload.in_pairs else read_flop(sizes, 0, slots)
    invested, saved = compress + reading, full - held
    return Plan(
        spans=len(workload.spans),
        slots=slots,
        kv_bytes=Both(
            full=sizes.cache.of_places(workload.tokens), slots=sizes.cache.of_places(slots)
        ),
        file_bytes=file_bytes(sizes, workload),
        compress_tflop=compress / 1e12,
        question_tflop=Both(full=full / 1e12, slots=held / 1e12),
        break_even_questions=invested / saved if saved > 0 else None,
    )


def lora_weights(sizes: ModelSizes, model: ModelConfig) -> int:
    """Weights of the LoRA.

    Source: Hu et al. 2021 (arXiv:2106.09685): rank x (inputs + outputs) of each matrix.
    """
    return model.lora_rank * sizes.lora_ends[model.lora_targets]


def read_flop(sizes: ModelSizes, past: int, places: int) -> float:
    """FLOP of the layers for `places` new places of one row behind `past` ones.

    2 for each weight and place (Kaplan et al. 2020, arXiv:2001.08361, section 2.1), and 4 D_h
    for each pair of a place and one that it attends to, D_h being heads x head size: the
    products of queries with keys, and of weights with values. Attention is causal, and counted
    as if no layer had a window.
    """
    pairs = places * past + places * (places + 1) / 2
    return 2.0 * sizes.weights * places + 4.0 * sizes.attended * pairs


def head_flop(sizes: ModelSizes, tokens: int) -> float:
    """FLOP of the vocabulary head, D x V, for so many predicted tokens."""
    return 2.0 * sizes.hidden * sizes.vocabulary * tokens


def encode_flop(sizes: ModelSizes, workload: Workload) -> float:
    """FLOP to encode one document: L + K places a span; no vocabulary head is computed.

    The LoRA is computed for all of them, for keys and values for the K memory tokens alone.
    Source: `icae.model.encoder.build_batch`, `icae.model.key_values.KeyValueModel.encode_spans`.
    """
    lora = 2.0 * lora_weights(sizes, workload.model)
    return sum(
        read_flop(sizes, 0, n + k) + lora * (k if workload.in_pairs else n + k)
        for n, k in workload.spans
    )


def verify_flop(sizes: ModelSizes, workload: Workload) -> float:
    """FLOP to measure one document: the decoder predicts every token of it.

    Source: `icae.model.memory_model.MemoryModel.label_logits`: slots, objective tokens and all
    tokens of the span but the last, and the vocabulary head at L of them. Keys and values of slots,
    and of the objective tokens before them, are there already; for recall a probe of each span is
    read behind all of them (`icae.compression.compressor.Compressor.with_recall`).
    """
    own, flop, slots = workload.model, 0.0, sum(k for _, k in workload.spans)
    asked = own.objective_tokens + sum(PROBE_GIVEN) // 2 + PROBE_FOUND - 1
    for n, k in workload.spans:
        before, new = own.front + k, own.objective_tokens + n - 1
        past, places = (before, new) if workload.in_pairs else (0, before + new)
        flop += read_flop(sizes, past, places) + head_flop(sizes, n)
        if workload.in_pairs:
            flop += read_flop(sizes, own.front + slots, asked) + head_flop(sizes, PROBE_FOUND)
    return flop


def question_flop(sizes: ModelSizes, workload: Workload, past: int) -> float:
    """FLOP to read a question and write its answer behind `past` positions that were read."""
    places = workload.question_tokens + workload.answer_tokens - 1
    return read_flop(sizes, past, places) + head_flop(sizes, workload.answer_tokens)


def file_bytes(sizes: ModelSizes, workload: Workload) -> int:
    """Bytes of the memory file of one document.

    Source: the writer itself (docs/memory-format.md), of a made-up memory with these spans; the
    text is added.

    Raises a MemoryFileError if the document has too many spans for one file.
    """
    made_up = _made_up(workload, _maker(sizes, workload))
    return memory_size(made_up) + round(workload.text_bytes * workload.tokens)


def _maker(sizes: ModelSizes, workload: Workload) -> Provenance:
    """What makes the slots; its digests are zeros."""
    zeros = "0" * 64
    return Provenance(
        base_model="smollm2-135m-instruct",
        base_hash=zeros,
        adapter="smollm2-135m-cpu32",
        adapter_hash=zeros,
        tokenizer_hash=zeros,
        layout=workload.model.layout,
        hidden_size=sizes.hidden,
        key_values=sizes.key_values if workload.in_pairs else None,
        slot_dtype=KEY_VALUE_DTYPE if workload.in_pairs else workload.dtype,
    )


def _made_up(workload: Workload, made_by: Provenance) -> Memory:
    """A memory with the spans of a document, without slots, and fidelities of usual length."""
    spans: list[Span] = []
    token = 0
    for length, slots in workload.spans:
        right = max(1, length // 2 - (1 - length // 2 % 2))  # odd: as many digits as most have
        confidence = np.zeros(length, dtype=np.uint8)
        measured = TokenFidelity(reproduced=np.arange(length) < right, confidence=confidence)
        spans.append(
            Span(
                token_start=token,
                token_end=token + length,
                char_start=4 * token,
                char_end=4 * token + 4 * length,
                payload=Unread(kind=made_by.slot_kind, positions=slots),
                ratio=workload.ratio,
                fidelity=right / length if workload.verified else None,
                token_fidelity=measured if workload.verified else None,
            )
        )
        token += length
    document = MemoryDocument(
        name="a document.txt",
        sha256=made_by.base_hash,
        chars=4 * token,
        source=None,
        token_ids_sha256=made_by.base_hash,
        spans=tuple(spans),
    )
    return Memory(documents=(document,), provenance=made_by)
