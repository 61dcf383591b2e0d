"""Old turns of a conversation become memory.

Where the decoder has read them and the memory is keys and values, they are compressed from
its cache: memory tokens alone are computed, and what follows the turns is not read again. Else
their text is compressed like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from icae.compression import living
from icae.compression.compressor import Compressor, TokenizedText
from icae.config.types import TokenIds
from icae.decode.prefix import Prefix
from icae.decode.reader import OldTurns
from icae.decode.torch_folding import Leaving
from icae.memory import Memory, Span
from icae.memory.payload import ReadablePayload
from icae.model import render_prompt, tokenize_with_offsets

NAME = "conversation"
"""Name of the document that old turns become."""


def fold(compressor: Compressor, turns: OldTurns, prefix_of: Callable[[Memory], Prefix]) -> Memory:
    """The memory of older turns, with those that leave at its end.

    Args:
        compressor: Makes it.
        turns: The turns.
        prefix_of: What the decoder reads of a memory before a question.
    """
    folded = _from_cache(compressor, turns, prefix_of)
    if folded is not None:
        return folded
    left = turns.history[: turns.count]
    text = "".join(f"User: {asked}\nAssistant: {answer}\n" for asked, answer in left)
    if turns.older is None:
        return compressor.compress(compressor.tokenize(text), ratio=living.DEFAULT_RATIO, name=NAME)
    return living.append(compressor, turns.older, text)


def _from_cache(
    compressor: Compressor, turns: OldTurns, prefix_of: Callable[[Memory], Prefix]
) -> Memory | None:
    """The same from the cache, or None if the turns are not in it."""
    tokenizer, older = compressor.tokenizer, turns.older
    so_far = turns.memory if older is None else turns.memory + older
    prompt_ids = render_prompt(tokenizer, turns.question, history=turns.history)
    start, end = _left_out(
        prompt_ids,
        render_prompt(tokenizer, turns.question, history=turns.history[turns.count :]),
    )
    leaving = Leaving(prefix=prefix_of(so_far), prompt_ids=prompt_ids, start=start, end=end)
    folding = compressor.runtime.folding(leaving) if start < end else None
    text = _as_text(compressor, prompt_ids[start:end]) if folding is not None else None
    if folding is None or text is None:
        return None
    cut = compressor.cut(text)
    lengths = [span.tokens for span in cut]
    slots = [compressor.config.spans.count(n, living.DEFAULT_RATIO) for n in lengths]
    payloads = folding.encode(lengths, slots)
    spans = [_held(span, payload) for span, payload in zip(cut, payloads, strict=True)]
    made = compressor.memory(text, spans, name=NAME)
    size = 0 if older is None else len(older.spans)
    grown = made if older is None else older.replace_spans(0, size, size, made)
    compressor.runtime.go_on(folding, prefix_of(turns.memory + grown), payloads)
    return grown


def _held(span: Span, payload: ReadablePayload) -> Span:
    """A verbatim span with slots in place of its tokens; how well they hold it is not measured."""
    return replace(
        span, payload=payload, ratio=living.DEFAULT_RATIO, fidelity=None, token_fidelity=None
    )


def _left_out(longer: TokenIds, shorter: TokenIds) -> tuple[int, int]:
    """Which tokens have to leave a prompt so that another is left; none if no one run does."""
    missing = len(longer) - len(shorter)
    if missing < 1:
        return 0, 0
    differing = np.flatnonzero(longer[missing:] != shorter)
    start = int(differing[-1]) + 1 if len(differing) else 0
    fits = np.array_equal(longer[:start], shorter[:start])
    return (start, start + missing) if fits else (0, 0)


def _as_text(compressor: Compressor, ids: TokenIds) -> TokenizedText | None:
    """Tokens as text, or None if that text has other tokens."""
    text = compressor.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    if not text.strip():
        return None
    again, offsets = tokenize_with_offsets(compressor.tokenizer, text, control=True)
    same = np.array_equal(again, ids)
    return TokenizedText(text=text, ids=again, offsets=offsets) if same else None
