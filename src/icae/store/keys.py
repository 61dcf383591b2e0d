"""Content addresses and names: the same text, models and settings give the same key."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

from icae.errors import InputError
from icae.memory import Memory, Provenance
from icae.memory.strict_json import write_canonical
from icae.store.records import Settings

MIN_PREFIX = 8
"""Fewest digits of a key that stand for all of it."""

MAX_NAME_CHARS = 4096
"""Longest name of a memory."""


def check_name(name: str) -> None:
    """An InputError for a name that is blank, too long, of several lines or no Unicode."""
    if not name.strip():
        got = "a blank name"
    elif len(name) > MAX_NAME_CHARS:
        got = f"{len(name)} characters"
    elif any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in name):
        got = f"{name[:80]!r}"
    else:
        return
    expected = f"1..{MAX_NAME_CHARS} characters of text on one line"
    raise InputError("That is no name for a memory.", got=got, expected=expected)


def maker_hash(provenance: Provenance) -> str:
    """Digest of what two memories have to share to fit together; names are not in it."""
    return _digest(
        [
            provenance.base_hash,
            provenance.adapter_hash,
            provenance.tokenizer_hash,
            provenance.layout,
            provenance.hidden_size,
            provenance.slot_dtype,
        ]
    )


def memory_key(text_sha256: str, provenance: Provenance, settings: Settings) -> str:
    """Content address of a memory, known before it is made: SHA-256, lower-case hex."""
    made_by = maker_hash(provenance)
    return _digest({"made_by": made_by, "settings": dict(settings), "text": text_sha256})


def compressor_settings(*, ratio: float, verify: bool) -> Settings:
    """The settings of a text compressed as a whole at one ratio, and measured or not."""
    return {"ratio": float(ratio), "verify": verify}


def text_digest(memory: Memory) -> str:
    """Digest of the text of a memory; of several documents, of their digests."""
    digests = [document.sha256 for document in memory.documents]
    return digests[0] if len(digests) == 1 else _digest(digests)


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


def row_of(
    memory: Memory, data: bytes, settings: Settings | None
) -> dict[str, str | int | float | None]:
    """What a store records of a memory with such bytes, by column; settings as in `NewMemory`."""
    sha256, text_sha256 = hashlib.sha256(data).hexdigest(), text_digest(memory)
    settings = settings_of(memory, sha256) if settings is None else settings
    made_by = {name: said for name, said in asdict(memory.provenance).items() if said is not None}
    return {
        "key": memory_key(text_sha256, memory.provenance, settings),
        "settings": write_canonical(dict(settings)),
        "text_sha256": text_sha256,
        "maker": maker_hash(memory.provenance),
        "provenance": write_canonical(made_by),
        "documents": len(memory.documents),
        "tokens": memory.tokens,
        "positions": memory.positions,
        "fidelity": memory.fidelity,
        "bytes": len(data),
        "sha256": sha256,
    }


def _digest(value: object) -> str:
    return hashlib.sha256(write_canonical(value).encode()).hexdigest()
