"""Old turns of a conversation become memory.

A conversation reads ``[front ; memory ; objective ; prompt]``. Where the decoder has read the turns
that leave the prompt and the memory is keys and values, memory tokens attend to those in its cache,
turned so that each span begins at position 0, and are all that is computed (but for the first token
of a span, if it is not known alone). What follows the turns is not read again either: it moves up
by as many positions as became free, keys turned back and values as they are.

Elsewhere their text is compressed like any other. All older turns take a bounded number of
positions: where they would take more, the oldest are compressed anew at twice their ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from icae.compression import living
from icae.compression.compressor import Compressor, TokenizedText, unmeasured
from icae.config.spans import DEFAULT_RATIO
from icae.config.types import TokenIds
from icae.decode.conversation import Conversation
from icae.decode.prefix import Prefix, ReadSoFar
from icae.decode.torch_forms import KeyValueForm
from icae.decode.torch_kv import LastRead
from icae.memory import Memory
from icae.memory.payload import ReadablePayload
from icae.model.decoder import KeyValues, joined, places_of
from icae.model.prompts import render_prompt, tokenize_with_offsets

NAME = "conversation"
"""Name of the document that old turns become."""

HIGHEST_RATIO = 16.0
"""Context tokens per slot of the oldest turns, before they are forgotten."""

SLACK = 16
"""When positions run out, about one of so many is won back at a time."""


def fold(compressor: Compressor, told: Conversation, question: str) -> Memory:
    """The memory of older turns, with those that leave before a question at its end."""
    compressor.require_alone("A conversation whose turns become memory")
    cached = _in_cache(compressor, told, question)
    if cached is None:
        return _within(compressor, _from_text(compressor, told), told.older_positions)
    grown = _within(compressor, _from_cache(compressor, told, cached), told.older_positions)
    if told.memory is not None:  # else no objective tokens were read
        prefix = compressor.runtime.asked(told.behind_documents(grown))
        compressor.runtime.last = cached.moved_up(prefix)
    return grown


@dataclass(frozen=True, kw_only=True)
class Cached:
    """Turns that leave a prompt, and the cache that holds them.

    Attributes:
        form: Form of the memory.
        layers: Keys and values of all that was read last, as far as it is in `read`.
        read: What was to be read before the answer.
        prompt_ids: The prompt with the turns.
        start: Their first token in it.
        text: Their tokens as text.
    """

    form: KeyValueForm
    layers: KeyValues
    read: ReadSoFar
    prompt_ids: TokenIds
    start: int
    text: TokenizedText

    @property
    def prompt(self) -> int:
        """Places before the prompt."""
        return len(self.read) - len(self.prompt_ids)

    def moved(self, start: int, end: int, by: int) -> KeyValues:
        """Keys and values of places, so many positions further on."""
        return self.form.moved(places_of(self.layers, start, end), by)

    @torch.inference_mode()
    def encode(self, lengths: Sequence[int], slots: Sequence[int]) -> list[ReadablePayload]:
        """What stands for the turns, cut into spans of some lengths; one forward pass."""
        ids, seen, start = [], [], self.start
        for length in lengths:
            ids.append(self.prompt_ids[start : start + length])
            at = self.prompt + start
            seen.append(self.moved(at, at + length, -self.read.positions[at]))
            start += length
        return self.form.encode_read(ids, slots, seen)

    @torch.inference_mode()
    def moved_up(self, prefix: Prefix) -> LastRead:
        """What counts as read once the turns are part of a memory."""
        start, end = self.start, self.start + len(self.text.ids)
        ids = [*self.prompt_ids[:start], *self.prompt_ids[end:]]
        read = ReadSoFar.of(self.form.config, prefix, ids)
        objective = self.prompt - self.form.config.objective_tokens
        known = min(self.read.shared(read), objective)
        past = self.form.past(prefix, places_of(self.layers, 0, known))
        grown = past[0][0].shape[2] - objective
        stay = self.moved(objective, self.prompt + start, grown)
        held = self.layers[0][0].shape[2]
        follow = self.moved(self.prompt + end, held, grown - (end - start))
        past = joined([past, stay, follow])
        places = past[0][0].shape[2]
        read = ReadSoFar(keys=read.keys[:places], positions=read.positions[:places])
        return LastRead(cache=DynamicCache(past), read=read)


def _from_text(compressor: Compressor, told: Conversation) -> Memory:
    """The encoder reads the turns by themselves."""
    left = told.history[: told.leaving]
    text = "".join(f"User: {asked}\nAssistant: {answer}\n" for asked, answer in left)
    if told.older is None:
        return compressor.compress(compressor.tokenize(text), ratio=DEFAULT_RATIO, name=NAME)
    return living.append(compressor, told.older, text)


def _in_cache(compressor: Compressor, told: Conversation, question: str) -> Cached | None:
    """The turns in the cache, and as text; None if they are not there."""
    last, form, config = compressor.runtime.last, compressor.runtime.form, compressor.config
    memory = told.memory
    if last is None or not isinstance(form, KeyValueForm):
        return None
    tokenizer, history = compressor.tokenizer, told.history
    prompt_ids = render_prompt(tokenizer, question, history=history)
    shorter = render_prompt(tokenizer, question, history=history[told.leaving :])
    start, end = _left_out(prompt_ids, shorter)
    prefix = None if memory is None else compressor.runtime.asked(memory)
    read = ReadSoFar.of(config, prefix, prompt_ids)
    shared = last.read.shared(read)
    if start == end or shared < len(read) - len(prompt_ids) + end:
        return None
    text = _as_text(compressor, prompt_ids[start:end])
    if text is None:
        return None
    return Cached(
        form=form,
        layers=last.places(shared),
        read=read,
        prompt_ids=prompt_ids,
        start=start,
        text=text,
    )


def _from_cache(compressor: Compressor, told: Conversation, cached: Cached) -> Memory:
    """Memory tokens attend to what the decoder made of the turns; none of it is measured."""
    cut = compressor.cut(cached.text)
    lengths = [span.tokens for span in cut]
    payloads = cached.encode(
        lengths, [compressor.config.spans.count(n, DEFAULT_RATIO) for n in lengths]
    )
    spans = [
        unmeasured(span, payload, DEFAULT_RATIO)
        for span, payload in zip(cut, payloads, strict=True)
    ]
    made, older = compressor.memory(cached.text, spans, name=NAME), told.older
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
