"""Writing spans back out: from their slots by greedy decoding, or verbatim as they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from icae.config.types import Reconstruction, TokenIds
from icae.decode.prefix import Prefix
from icae.decode.runtime import Runtime
from icae.errors import InputError
from icae.memory import Memory, hash_token_ids
from icae.model.prompts import tokenize


def reconstruct(
    runtime: Runtime,
    tokenizer: Any,
    memory: Memory,
    *,
    spans: Sequence[int] | None,
    on_progress: Callable[[int, int], None] | None,
) -> list[Reconstruction]:
    """Write spans back out; the decoder sees nothing but the slots of each.

    Args:
        runtime: Runs the decoder.
        tokenizer: The base model's tokenizer.
        memory: A memory made by this model.
        spans: Indices of the spans, or None for all.
        on_progress: Called with (spans done, spans in all).

    Returns:
        One reconstruction for each span, in the order asked for.

    Raises:
        InputError: If a span index is out of range.
    """
    wanted = list(range(len(memory.spans))) if spans is None else list(spans)
    for i in wanted:
        if not 0 <= i < len(memory.spans):
            raise InputError(
                "There is no such span.", got=str(i), expected=f"0 to {len(memory.spans) - 1}"
            )
    report = on_progress or (lambda done, total: None)
    originals = original_ids(tokenizer, memory)
    made: dict[int, Reconstruction] = {}
    coded = []
    for i in dict.fromkeys(wanted):
        if memory.spans[i].kind == "tokens":
            made[i] = _verbatim(tokenizer, memory, i)
        else:
            coded.append(i)
    for part in runtime.batches([memory.spans[i].tokens for i in coded]):
        chosen = coded[part]
        report(sum(i in made for i in wanted), len(wanted))
        written = runtime.write_back(
            [Prefix.of_memory(memory, "ae", spans=slice(i, i + 1)) for i in chosen]
        )
        for i, ids in zip(chosen, written, strict=True):
            made[i] = _from_slots(tokenizer, memory, i, ids, originals)
    report(len(wanted), len(wanted))
    return [made[i] for i in wanted]


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Token ids as text, with the white space that they stand for."""
    return str(tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))


def _verbatim(tokenizer: Any, memory: Memory, i: int) -> Reconstruction:
    """A verbatim span: its source where it was kept, else its token ids as text."""
    original = memory.span_source(i)
    ids = tuple(memory.spans[i].verbatim_ids.tolist())
    text = original
    if text is None:
        text = decode(tokenizer, ids)
    return Reconstruction(span=i, text=text, original=original, token_ids=ids, exact_prefix=1.0)


def _from_slots(
    tokenizer: Any,
    memory: Memory,
    i: int,
    ids: tuple[int, ...],
    originals: dict[int, TokenIds],
) -> Reconstruction:
    span, document = memory.spans[i], memory.document_of[i]
    prefix = None
    if document in originals:
        true = originals[document][span.token_start : span.token_end]
        same = np.asarray(ids) == true
        prefix = float(np.argmin(same) if not same.all() else len(same)) / len(same)
    return Reconstruction(
        span=i,
        text=decode(tokenizer, ids),
        original=memory.span_source(i),
        token_ids=ids,
        exact_prefix=prefix,
    )


def original_ids(tokenizer: Any, memory: Memory) -> dict[int, TokenIds]:
    """Token ids of the documents whose source was kept and whose ids it gives."""
    found = {
        i: tokenize(tokenizer, document.source)
        for i, document in enumerate(memory.documents)
        if document.source is not None and document.token_ids_sha256 is not None
    }
    return {
        i: ids
        for i, ids in found.items()
        if hash_token_ids(ids) == memory.documents[i].token_ids_sha256
    }


def joined_text(
    memory: Memory, spans: Sequence[Reconstruction], decode: Callable[[list[int]], str]
) -> str:
    """The text of several reconstructed spans, in the order given.

    Neighbouring spans are decoded together: a character may be cut between two of them
    (bytes of one letter can be several tokens), and neither has it alone.

    Args:
        memory: The memory they belong to.
        spans: Reconstructed spans.
        decode: Turns token ids into text.

    Returns:
        Neighbouring spans of a document run on; elsewhere a line break comes between.
    """
    runs: list[list[int]] = []
    previous: int | None = None
    for item in spans:
        follows = previous is not None and item.span == previous + 1
        if not follows or memory.document_of[item.span] != memory.document_of[item.span - 1]:
            runs.append([])
        runs[-1] += item.token_ids
        previous = item.span
    return "\n".join(decode(run) for run in runs)
