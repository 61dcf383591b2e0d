"""Content addresses: the same text, models and settings give the same key."""

from __future__ import annotations

import hashlib

from icae.memory import Memory, Provenance
from icae.memory.strict_json import write_canonical
from icae.store.base import Settings

MIN_PREFIX = 8
"""Fewest digits of a key that stand for all of it."""


def maker_hash(provenance: Provenance) -> str:
    """Digest of what two memories have to share to fit together; names are not in it."""
    identity = [
        provenance.base_hash,
        provenance.adapter_hash,
        provenance.tokenizer_hash,
        provenance.layout,
        provenance.hidden_size,
        provenance.slot_dtype,
    ]
    return hashlib.sha256(write_canonical(identity).encode()).hexdigest()


def memory_key(text_sha256: str, provenance: Provenance, settings: Settings) -> str:
    """Content address of a memory, known before it is made: SHA-256, lower-case hex."""
    parts = {"made_by": maker_hash(provenance), "settings": dict(settings), "text": text_sha256}
    return hashlib.sha256(write_canonical(parts).encode()).hexdigest()


def compressor_settings(*, ratio: float, verify: bool) -> Settings:
    """The settings of a text compressed as a whole at one ratio, and measured or not."""
    return {"ratio": float(ratio), "verify": verify}


def text_digest(memory: Memory) -> str:
    """Digest of the text of a memory; of several documents, of their digests."""
    digests = [document.sha256 for document in memory.documents]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256(write_canonical(digests).encode()).hexdigest()


def settings_of(memory: Memory, content_sha256: str) -> Settings:
    """What was asked of the compressor, as far as the memory shows it.

    A text compressed as a whole at one ratio has the settings that name just that. What
    was edited, merged, refined or stripped of its text is addressed by the digest of its bytes.
    """
    spans = memory.spans
    ratios = {span.ratio for span in spans}
    lengths = {span.tokens for span in spans[:-1]}
    measured = {span.fidelity is not None for span in spans}
    plain = (
        len(memory.documents) == 1
        and memory.documents[0].source is not None
        and memory.documents[0].token_ids_sha256 is not None
        and len(ratios) == 1
        and len(measured) == 1
        and len(lengths) <= 1
        and all(span.kind != "tokens" and span.refine_steps == 0 for span in spans)
    )
    if not plain:
        return {"content": content_sha256}
    return compressor_settings(ratio=ratios.pop(), verify=measured.pop())
