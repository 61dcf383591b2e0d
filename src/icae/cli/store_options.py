"""What the `icae store` commands share: the option that names the store, and its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from icae.store import Added, SearchHit, StoredMemory

KEY_DIGITS = 12
"""Digits of a key that are shown to people."""

StorePath = Annotated[
    str,
    typer.Option(
        "--store",
        "-s",
        metavar="PATH",
        envvar="ICAE_STORE",
        help="The store: a file, or a Lance folder or URI that ends in .lance.",
    ),
]

Reference = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of a memory, or its key, of which 8 digits are enough."
    ),
]


def record_payload(record: StoredMemory) -> dict[str, Any]:
    """A stored memory as ``--json`` prints it."""
    return {
        "key": record.key,
        "names": list(record.names),
        "documents": record.documents,
        "passages": record.passages,
        "tokens": record.tokens,
        "positions": record.positions,
        "ratio": record.tokens / record.positions,
        "fidelity": record.fidelity,
        "bytes": record.bytes,
        "settings": dict(record.settings),
        "adapter": record.provenance.adapter,
        "base_model": record.provenance.base_model,
        "added_at": record.added_at,
    }


def added_payload(added: Added) -> dict[str, Any]:
    """What adding did, as ``--json`` prints it."""
    return {
        "name": added.name,
        "key": added.key,
        "new": added.new,
        "replaced": added.replaced,
    }


def hit_payload(hit: SearchHit) -> dict[str, Any]:
    """A passage that was found, as ``--json`` prints it."""
    return {
        "document": hit.document,
        "char_start": hit.char_start,
        "char_end": hit.char_end,
        "spans": [hit.span_first, hit.span_end],
        "positions": hit.positions,
        "score": hit.score,
        "snippet": hit.snippet,
        "key": hit.key,
    }


def names_text(names: tuple[str, ...]) -> str:
    """The names of a memory on one line."""
    return ", ".join(names) if names else "(no name; gc drops it)"
