"""Segments: what the decoder gets in place of the spans of a text, before it is a memory.

Whoever compresses a text makes one segment of each span, slots or verbatim tokens, and
`memory_of_segments` lays them out as a memory of one document.

Shapes: L context tokens of a span, K slots, D hidden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icae.config.types import FloatArray, SpanKind, TokenIds
from icae.memory.memory import Memory
from icae.memory.provenance import Provenance
from icae.memory.spans import MemoryDocument, MemorySpan, hash_token_ids, token_offsets
from icae.memory.token_fidelity import TokenFidelity, join_token_fidelity


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """What the decoder gets in place of one span.

    Attributes:
        kind: Whether that is ``slots`` or the ``tokens`` themselves.
        token_ids: The span's token ids, int64 [L].
        slots_KD: Its slots, float32 [K, D]; [0, D] if it is verbatim.
        ratio: Nominal compression ratio that was asked for; 1 if it is verbatim.
        token_fidelity: How faithfully each of the L tokens is held, or None.
        refine_steps: Optimisation steps taken on the slots.
        refine_seconds: Wall time that these steps took, s.
        written_back: Whether the decoder, writing freely, gave every token back; None if
            that was not tried.
    """

    kind: SpanKind
    token_ids: TokenIds
    slots_KD: FloatArray
    ratio: float
    token_fidelity: TokenFidelity | None
    refine_steps: int = 0
    refine_seconds: float = 0.0
    written_back: bool | None = None

    @classmethod
    def of_slots(
        cls,
        token_ids: TokenIds,
        slots_KD: FloatArray,
        *,
        ratio: float,
        token_fidelity: TokenFidelity | None,
    ) -> Segment:
        """A span that the decoder gets as slots.

        Args:
            token_ids: The span's token ids, int64 [L].
            slots_KD: Its slots, float32 [K, D].
            ratio: Nominal compression ratio that was asked for.
            token_fidelity: How faithfully each token is held, or None if not measured.
        """
        return cls(
            kind="slots",
            token_ids=token_ids,
            slots_KD=slots_KD,
            ratio=ratio,
            token_fidelity=token_fidelity,
        )

    @classmethod
    def of_tokens(cls, token_ids: TokenIds, *, hidden_size: int) -> Segment:
        """A span that the decoder gets as it is.

        Args:
            token_ids: The span's token ids, int64 [L].
            hidden_size: D, the width of a slot of the memory.
        """
        return cls(
            kind="tokens",
            token_ids=token_ids,
            slots_KD=np.zeros((0, hidden_size), dtype=np.float32),
            ratio=1.0,
            token_fidelity=TokenFidelity.of_verbatim(len(token_ids)),
        )

    @property
    def verbatim_ids(self) -> TokenIds:
        """The token ids that the decoder gets: all of them, or none."""
        return self.token_ids if self.kind == "tokens" else self.token_ids[:0]

    @property
    def positions(self) -> int:
        """Decoder positions that it takes."""
        return len(self.slots_KD) + len(self.verbatim_ids)


def segment_of_span(memory: Memory, index: int, token_ids: TokenIds) -> Segment:
    """What stands for a span of a memory.

    Args:
        memory: The memory.
        index: Which span, from 0.
        token_ids: The span's token ids, int64 [L].
    """
    span = memory.spans[index]
    start, end = token_offsets(memory.spans)[index : index + 2]
    tokens = memory.token_fidelity
    return Segment(
        kind=span.kind,
        token_ids=token_ids,
        slots_KD=memory.slots[span.slot_start : span.slot_end],
        ratio=span.ratio,
        token_fidelity=None if tokens is None else tokens.tokens(int(start), int(end)),
        refine_steps=span.refine_steps,
        refine_seconds=span.refine_seconds,
        written_back=span.written_back,
    )


def memory_of_segments(
    segments: Sequence[Segment],
    *,
    text: str,
    offsets: Sequence[int],
    name: str,
    provenance: Provenance,
) -> Memory:
    """Lay the segments of a text out as a memory of one document.

    A span's characters end where the next one's begin, so that spans tile the text.

    Args:
        segments: What stands for each span of the text's tokens, in order.
        text: The text; it is kept beside the slots.
        offsets: Character at which each token of the text starts.
        name: Name of the document.
        provenance: What made the slots.

    Returns:
        The memory; its token fidelity is known if that of every segment is.

    Raises:
        ConfigError: If the segments are not those of the text.
    """
    ids = np.concatenate([segment.token_ids for segment in segments])
    edges = [0, *offsets[1:], len(text)]
    spans: list[MemorySpan] = []
    token, slot, row = 0, 0, 0
    for segment in segments:
        fidelity = segment.token_fidelity
        span = MemorySpan(
            document=0,
            token_start=token,
            token_end=token + len(segment.token_ids),
            char_start=edges[token],
            char_end=edges[token + len(segment.token_ids)],
            slot_start=slot,
            slot_end=slot + len(segment.slots_KD),
            ratio=float(segment.ratio),
            fidelity=None if fidelity is None else fidelity.share,
            kind=segment.kind,
            verbatim_start=row,
            verbatim_end=row + len(segment.verbatim_ids),
            refine_steps=segment.refine_steps,
            refine_seconds=segment.refine_seconds,
            written_back=segment.written_back,
        )
        token, slot, row = span.token_end, span.slot_end, span.verbatim_end
        spans.append(span)
    document = MemoryDocument(
        name=name,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        chars=len(text),
        tokens=len(offsets),
        source=text,
        token_ids_sha256=hash_token_ids(ids),
    )
    return Memory(
        slots=np.concatenate([segment.slots_KD for segment in segments]),
        spans=tuple(spans),
        documents=(document,),
        provenance=provenance,
        verbatim_ids=np.concatenate([segment.verbatim_ids for segment in segments]),
        token_fidelity=join_token_fidelity([segment.token_fidelity for segment in segments]),
    )
