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
    """Write spans back out, all or some; see `icae.decode.reader.Reader.reconstruct`."""
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
            ids = tuple(memory.spans[i].verbatim_ids.tolist())
            made[i] = _written(tokenizer, memory, i, ids, memory.span_source(i), 1.0)
        else:
            coded.append(i)
    for part in runtime.batches([memory.spans[i].tokens for i in coded]):
        chosen = coded[part]
        report(sum(i in made for i in wanted), len(wanted))
        prefixes = [Prefix.of_memory(memory, "ae", spans=slice(i, i + 1)) for i in chosen]
        for i, ids in zip(chosen, runtime.write_back(prefixes), strict=True):
            share = _exact_prefix(memory, i, ids, originals)
            made[i] = _written(tokenizer, memory, i, ids, None, share)
    report(len(wanted), len(wanted))
    return [made[i] for i in wanted]


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Token ids as text, with the white space that they stand for."""
    return str(tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))


def _written(
    tokenizer: Any,
    memory: Memory,
    i: int,
    ids: tuple[int, ...],
    text: str | None,
    exact_prefix: float | None,
) -> Reconstruction:
    """A span from its token ids, and from its text where that is known."""
    return Reconstruction(
        span=i,
        text=decode(tokenizer, ids) if text is None else text,
        original=memory.span_source(i),
        token_ids=ids,
        exact_prefix=exact_prefix,
    )


def _exact_prefix(
    memory: Memory, i: int, ids: tuple[int, ...], originals: dict[int, TokenIds]
) -> float | None:
    """Share of leading tokens of a span that are right, if it is known which are."""
    span, document = memory.spans[i], memory.document_of[i]
    if document not in originals:
        return None
    same = np.asarray(ids) == originals[document][span.token_start : span.token_end]
    return float(np.argmin(same) if not same.all() else len(same)) / len(same)


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


def joined_text(tokenizer: Any, memory: Memory, spans: Sequence[Reconstruction]) -> str:
    """The text of several reconstructed spans, in the order given.

    Neighbouring spans of a document are decoded together: a character may be cut between two of
    them (bytes of one letter can be several tokens), and neither has it alone. Elsewhere a line
    break comes between.
    """
    runs: list[list[int]] = []
    previous: int | None = None
    for item in spans:
        follows = previous is not None and item.span == previous + 1
        if not follows or memory.document_of[item.span] != memory.document_of[item.span - 1]:
            runs.append([])
        runs[-1] += item.token_ids
        previous = item.span
    return "\n".join(decode(tokenizer, run) for run in runs)
