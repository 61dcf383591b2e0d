"""Where the tokens of a memory start in its text: needs the tokenizer, but no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from icae.cli import engine
from icae.errors import IncompatibleMemoryError

if TYPE_CHECKING:
    from icae.memory import Memory


def token_places(memory: Memory, base: str | None) -> list[Sequence[int] | None]:
    """Character at which each token starts, for each document.

    Args:
        memory: The memory.
        base: Base model whose tokenizer to load; by default the one the memory names.

    Returns:
        For each document the starts of its tokens, or None where they are not known: its
        text was not kept, or does not give the tokens that it was compressed from.

    Raises:
        BaseModelError: If the tokenizer cannot be loaded.
        IncompatibleMemoryError: If it is not the one that the memory was made with.
    """
    name = base or memory.provenance.base_model
    tokenizer, digest = engine.open_tokenizer(name)
    if digest != memory.provenance.tokenizer_hash:
        raise IncompatibleMemoryError(
            f"The tokenizer of {name} is not the one that the memory was made with.",
            got=f"tokenizer {digest}",
            expected=f"tokenizer {memory.provenance.tokenizer_hash}",
            fix="Name the base model of the memory with --base.",
        )
    return [_places(memory, index, tokenizer) for index in range(len(memory.documents))]


def _places(memory: Memory, index: int, tokenizer: Any) -> Sequence[int] | None:
    from icae.memory import hash_token_ids

    document = memory.documents[index]
    if document.source is None or not document.source.strip():
        return None
    ids, starts = engine.tokenize_with_offsets(tokenizer, document.source)
    if document.token_ids_sha256 is not None:
        return starts if hash_token_ids(ids) == document.token_ids_sha256 else None
    # A slice or an edit does not know its ids as a whole: every span has to fit.
    spans = [span for span in memory.spans if span.document == index]
    fits = len(ids) == document.tokens and all(
        starts[span.token_start] == span.char_start for span in spans[1:]
    )
    return starts if fits else None
