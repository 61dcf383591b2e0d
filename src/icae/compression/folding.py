"""Old turns of a conversation become memory.

Where the decoder has read them and the memory is keys and values, they are compressed from
its cache: memory tokens alone are computed, and what follows the turns is not read again. Else
their text is compressed like any other. All older turns take a bounded number of positions: where
they would take more, the oldest are compressed anew at twice their ratio.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from icae.compression import living
from icae.compression.compressor import Compressor, TokenizedText
from icae.config.spans import DEFAULT_RATIO
from icae.config.types import TokenIds
from icae.decode.reader import OldTurns
from icae.decode.torch_folding import Folding, Leaving
from icae.memory import Memory, Span
from icae.memory.payload import ReadablePayload
from icae.model import render_prompt, tokenize_with_offsets

NAME = "conversation"
"""Name of the document that old turns become."""

HIGHEST_RATIO = 16.0
"""Context tokens per slot of the oldest turns, before they are forgotten."""

SLACK = 16
"""When positions run out, about one of so many is won back at a time."""


def fold(compressor: Compressor, turns: OldTurns) -> Memory:
    """The memory of older turns, with those that leave at its end."""
    found = _in_cache(compressor, turns)
    if found is None:
        return _within(compressor, _from_text(compressor, turns), turns.most_positions)
    grown = _within(compressor, _from_cache(compressor, turns, *found), turns.most_positions)
    compressor.runtime.go_on(found[0], compressor.runtime.asked(turns.memory + grown))
    return grown


def _from_text(compressor: Compressor, turns: OldTurns) -> Memory:
    """The encoder reads the turns by themselves."""
    left = turns.history[: turns.count]
    text = "".join(f"User: {asked}\nAssistant: {answer}\n" for asked, answer in left)
    if turns.older is None:
        return compressor.compress(compressor.tokenize(text), ratio=DEFAULT_RATIO, name=NAME)
    return living.append(compressor, turns.older, text)


def _in_cache(compressor: Compressor, turns: OldTurns) -> tuple[Folding, TokenizedText] | None:
    """The turns in the cache, and as text; None if they are not there."""
    tokenizer = compressor.tokenizer
    so_far = turns.memory if turns.older is None else turns.memory + turns.older
    prompt_ids = render_prompt(tokenizer, turns.question, history=turns.history)
    start, end = _left_out(
        prompt_ids,
        render_prompt(tokenizer, turns.question, history=turns.history[turns.count :]),
    )
    runtime = compressor.runtime
    leaving = Leaving(prefix=runtime.asked(so_far), prompt_ids=prompt_ids, start=start, end=end)
    folding = runtime.folding(leaving) if start < end else None
    text = _as_text(compressor, prompt_ids[start:end]) if folding is not None else None
    return None if folding is None or text is None else (folding, text)


def _from_cache(
    compressor: Compressor, turns: OldTurns, folding: Folding, text: TokenizedText
) -> Memory:
    """Memory tokens attend to what the decoder made of the turns."""
    cut = compressor.cut(text)
    lengths = [span.tokens for span in cut]
    payloads = folding.encode(
        lengths, [compressor.config.spans.count(n, DEFAULT_RATIO) for n in lengths]
    )
    spans = [_held(span, payload) for span, payload in zip(cut, payloads, strict=True)]
    made, older = compressor.memory(text, spans, name=NAME), turns.older
    size = 0 if older is None else len(older.spans)
    return made if older is None else older.replace_spans(0, size, size, made)


def _within(compressor: Compressor, older: Memory, most: int) -> Memory:
    """Older turns in at most so many positions: the oldest get fewer slots, then leave."""
    while older.positions > most and len(older.spans) > 1:
        ratios = [span.ratio for span in older.spans]
        ratio, first = 2 * min(ratios), ratios.index(min(ratios))
        if ratio > HIGHEST_RATIO:
            older = older.replace_spans(0, 0, 1, None)
            continue
        end, spare = first, 0
        while end < len(ratios) and ratios[end] == ratios[first] and spare <= most // SLACK:
            spare += older.spans[end].positions // 2
            end += 1
        coarser = _anew(compressor, older, slice(first, end), ratio=ratio)
        older = older.replace_spans(0, first, end, coarser)
    return older


def _anew(compressor: Compressor, older: Memory, which: slice, *, ratio: float) -> Memory | None:
    """Spans of older turns, compressed anew at another ratio; None if they are blank."""
    spans = older.spans[which]
    chars = slice(spans[0].char_start, spans[-1].char_end)
    text = older.documents[0].require_source()[chars]
    if not text.strip():
        return None
    # Turns from a cache have the template's tokens; what somebody typed never is one.
    plain, control = (_tokenized(compressor, text, control=control) for control in (False, True))
    tokens = control if len(control.ids) == sum(span.tokens for span in spans) else plain
    return compressor.compress(tokens, ratio=ratio, name=NAME, verify=False)


def _held(span: Span, payload: ReadablePayload) -> Span:
    """A verbatim span with slots in place of its tokens; how well they hold it is not measured."""
    return replace(span, payload=payload, ratio=DEFAULT_RATIO, fidelity=None, token_fidelity=None)


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
    tokens = _tokenized(compressor, text, control=True)
    return tokens if np.array_equal(tokens.ids, ids) else None


def _tokenized(compressor: Compressor, text: str, *, control: bool) -> TokenizedText:
    """A text and its tokens, those of the chat template taken for what they are, or as text."""
    ids, offsets = tokenize_with_offsets(compressor.tokenizer, text, control=control)
    return TokenizedText(text=text, ids=ids, offsets=offsets)
