"""Tokens of a prompt that was read become memory, from the keys and values that are there.

A conversation reads ``[front ; memory ; objective ; prompt]``. When old turns leave the prompt,
the decoder has read them: memory tokens attend to those keys and values, turned so that each span
begins at position 0, and are all that is computed (but for the first token of a span, if it is
not known alone). What follows them is moved up by as many positions as became free, keys turned
back and values as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import DynamicCache

from icae.config import ModelConfig
from icae.config.types import TokenIds
from icae.decode.prefix import Prefix, ReadSoFar
from icae.decode.torch_kv import LastRead
from icae.memory.payload import ReadablePayload
from icae.model.decoder import KeyValues, joined, places_of


class MovableForm(Protocol):
    """What folding asks of a form of memory that is keys and values."""

    @property
    def config(self) -> ModelConfig:
        """Architecture of the adapter."""
        ...

    def encode_read(
        self, spans: Sequence[TokenIds], slots: Sequence[int], seen: Sequence[KeyValues]
    ) -> list[ReadablePayload]:
        """What stands for spans that were read; their keys are as if each began at 0."""
        ...

    def past(self, prefix: Prefix, known: KeyValues | None = None) -> KeyValues:
        """Keys and values of a prefix, of which the first places may be known."""
        ...

    def moved(self, past: KeyValues, by: int) -> KeyValues:
        """Keys and values of places, so many positions further on."""
        ...


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """Tokens that leave a prompt.

    Attributes:
        prefix: The memory before the prompt.
        prompt_ids: The prompt with them.
        start: The first of them.
        end: One past the last.
    """

    prefix: Prefix
    prompt_ids: TokenIds
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Folding:
    """Tokens that leave a prompt, and the cache that holds them.

    Attributes:
        form: Form of the memory.
        leaving: The tokens.
        layers: Keys and values of all that was read last.
        read: What the cache was to hold before the answer.
        shared: How much of that it holds.
    """

    form: MovableForm
    leaving: Leaving
    layers: KeyValues
    read: ReadSoFar
    shared: int

    @classmethod
    def of(cls, form: MovableForm, last: LastRead, leaving: Leaving) -> Folding | None:
        """The folding of tokens, or None if they are not in the cache."""
        read = ReadSoFar.of(form.config, leaving.prefix, leaving.prompt_ids)
        shared = last.read.shared(read)
        if shared < len(read) - len(leaving.prompt_ids) + leaving.end:
            return None
        return cls(form=form, leaving=leaving, layers=last.places(shared), read=read, shared=shared)

    @torch.inference_mode()
    def encode(self, lengths: Sequence[int], slots: Sequence[int]) -> list[ReadablePayload]:
        """What stands for the tokens, cut into spans of some lengths; one forward pass."""
        ids, seen, start = [], [], self.leaving.start
        for length in lengths:
            ids.append(self.leaving.prompt_ids[start : start + length])
            at = self._prompt + start
            seen.append(self._moved(at, at + length, -self.read.positions[at]))
            start += length
        return self.form.encode_read(ids, slots, seen)

    @torch.inference_mode()
    def read_behind(self, prefix: Prefix) -> LastRead:
        """What counts as read once the tokens are memory.

        Args:
            prefix: The memory with them.
        """
        start, end = self.leaving.start, self.leaving.end
        ids = [*self.leaving.prompt_ids[:start], *self.leaving.prompt_ids[end:]]
        read = ReadSoFar.of(self.form.config, prefix, ids)
        objective = self._prompt - self.form.config.objective_tokens
        known = min(self.read.shared(read), objective)
        past = self.form.past(prefix, places_of(self.layers, 0, known))
        grown = past[0][0].shape[2] - objective
        stay = self._moved(objective, self._prompt + start, grown)
        follow = self._moved(self._prompt + end, self.shared, grown - (end - start))
        past = joined([past, stay, follow])
        places = past[0][0].shape[2]
        read = ReadSoFar(keys=read.keys[:places], positions=read.positions[:places])
        return LastRead(cache=DynamicCache(past), read=read)

    @property
    def _prompt(self) -> int:
        """Places before the prompt."""
        return len(self.read) - len(self.leaving.prompt_ids)

    def _moved(self, start: int, end: int, by: int) -> KeyValues:
        return self.form.moved(places_of(self.layers, start, end), by)
