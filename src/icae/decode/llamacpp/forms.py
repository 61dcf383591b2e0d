"""What llama.cpp reads of each form of memory.

It counts places by positions without gaps, so everything is read at the positions 0, 1, 2, ...;
keys and values of a memory, which may be wanted elsewhere, are turned before they enter the cache.

Shape legend: S decoder inputs, K slots, M objective tokens on a side, D hidden size, Y layers,
H key-value heads, W head width.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from icae.config import ModelConfig
from icae.config.types import FloatArray, Objective, TokenIds
from icae.decode.checkpoint import BaseFolder
from icae.decode.llamacpp.context import LlamaContext, LlamaModel
from icae.decode.llamacpp.order import CacheOrder, Positions
from icae.decode.llamacpp.state import SequenceState
from icae.decode.prefix import Prefix, input_positions
from icae.decode.runtime import other_form
from icae.errors import InputError
from icae.memory import KeyValueSlots
from icae.memory.key_values import KeyValueRun
from icae.memory.provenance import KEY_VALUE_DTYPES, StoredDtype

Numbers = Callable[[int, int], FloatArray]
"""Gives the keys and values of the places ``first..end`` of some, [P, Y, 2, H, W]."""


class Placed(NamedTuple):
    """Keys and values that enter a cache as they are.

    Attributes:
        at: The first place that they take.
        size: How many places they take.
        numbers: What they are.
    """

    at: int
    size: int
    numbers: Numbers


class Run(NamedTuple):
    """Decoder inputs of one kind.

    Attributes:
        inputs: Input embeddings [S, D], token ids [S], or places [S] of keys and values.
        read: What reads them: as `LlamaContext.read_embeds`.
    """

    inputs: NDArray[Any]
    read: Callable[..., int]


def joined(runs: Sequence[Run]) -> list[Run]:
    """The same inputs in as few runs as there can be: every pass reads all weights."""
    groups = itertools.groupby(runs, key=lambda run: run.read)
    return [Run(np.concatenate([run.inputs for run in own]), read) for read, own in groups]


class LlamaForm(ABC):
    """One form of memory in llama.cpp.

    Args:
        config: Architecture of the adapter.
        objectives: Vectors [2M or M, D] of each objective, float32.

    Attributes:
        slot_dtypes: How memories that it reads may be stored, its own way first.
    """

    slot_dtypes: ClassVar[tuple[StoredDtype, ...]]

    def __init__(self, config: ModelConfig, objectives: Mapping[Objective, FloatArray]) -> None:
        self.config, self.objectives = config, objectives

    @abstractmethod
    def memory(self, prefix: Prefix) -> list[Run]:
        """What is read of ``[front ; memory]``."""

    def prompt(self, token_ids: TokenIds) -> Run:
        """A prompt behind a memory."""
        return Run(token_ids, LlamaContext.read_tokens)

    def runs(self, prefix: Prefix | None, prompt_ids: TokenIds) -> list[Run]:
        """Decoder inputs ``[front ; memory ; objective ; prompt]``."""
        if prefix is None:
            return [Run(prompt_ids, LlamaContext.read_tokens)]
        behind_MD = self.objectives[prefix.objective][-self.config.objective_tokens :]
        behind = Run(behind_MD, LlamaContext.read_embeds)
        return joined([*self.memory(prefix), behind, self.prompt(prompt_ids)])

    def front(self, objective: Objective) -> FloatArray:
        """Vectors of the objective tokens before the memory; there may be none."""
        return self.objectives[objective][: self.config.front]


class SlotForm(LlamaForm):
    """Slots: input embeddings, read like tokens."""

    slot_dtypes = ("bfloat16", "float32")

    def memory(self, prefix: Prefix) -> list[Run]:
        """Everything is read."""
        parts = [part.read_by(self) for part in prefix.parts]
        return [Run(self.front(prefix.objective), LlamaContext.read_embeds), *parts]

    def read_slots(self, slots_KD: FloatArray) -> Run:
        """Slots as decoder inputs."""
        return Run(slots_KD, LlamaContext.read_embeds)

    def read_tokens(self, token_ids: TokenIds) -> Run:
        """Token ids as decoder inputs."""
        return Run(token_ids, LlamaContext.read_tokens)

    def read_key_values(self, slots: KeyValueSlots) -> Run:
        """Refuse keys and values."""
        raise other_form("key-values", "embeddings")


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """How memories of keys and values enter the cache of a base model.

    Attributes:
        order: How llama.cpp keeps keys and values.
        embed: Input embeddings [S, D], float32, of token ids.
    """

    order: CacheOrder
    embed: Callable[[TokenIds], FloatArray]

    @classmethod
    def read(cls, order: Path, base: Path) -> CacheEntry:
        """From the file beside the GGUF file and the folder of the base model.

        Raises:
            BaseModelError: If either is not what it should be.
        """
        tensor = BaseFolder.open(base).tensors["model.embed_tokens.weight"]
        return cls(order=CacheOrder.read(order), embed=tensor.rows)


class KeyValueForm(LlamaForm):
    """Slots as keys and values: they enter the cache as a state of the library.

    Args:
        model: The weights.
        config: Architecture of the adapter.
        objectives: Vectors of each objective.
        entry: How memories enter the cache.
        kv_dtype: Precision of the cache.
    """

    slot_dtypes = KEY_VALUE_DTYPES

    def __init__(
        self,
        model: LlamaModel,
        config: ModelConfig,
        objectives: Mapping[Objective, FloatArray],
        entry: CacheEntry,
        *,
        kv_dtype: str,
    ) -> None:
        super().__init__(config, objectives)
        self._model, self._entry, self._kv_dtype = model, entry, kv_dtype
        self._front = functools.cache(self._read_front)

    def prompt(self, token_ids: TokenIds) -> Run:
        """As embeddings, to be read in one pass with the objective tokens."""
        return Run(self._entry.embed(token_ids), LlamaContext.read_embeds)

    def memory(self, prefix: Prefix) -> list[Run]:
        """Front and slots enter as they are; verbatim tokens are read behind what precedes."""
        places = self.config.front + prefix.positions
        position_S = np.array(input_positions(self.config, prefix, 0))
        # What follows the memory is read at the positions from `places` on.
        position_S += places - position_S[places]
        _, front = self._front(prefix.objective, 1)
        parts = _Parts(position_S=position_S)
        parts.place = functools.partial(self._place, parts=parts, objective=prefix.objective)
        runs = [parts.placed([(len(front), lambda first, end: front[first:end])])]
        return [*runs, *(part.read_by(parts) for part in prefix.parts)]

    def _read_front(self, objective: Objective, sequences: int) -> tuple[SequenceState, FloatArray]:
        """The keys and values of the front, and the state that the library writes of them.

        How it does depends on whether it was set up for one sequence or for several.
        """
        read_SD = self.objectives[objective][: max(1, self.config.front)]
        context = LlamaContext(
            self._model, places=len(read_SD), sequences=sequences, kv_dtype=self._kv_dtype
        )
        context.read_embeds(read_SD, start=0, sequence=0)
        state = context.state(0)
        context.close()
        position_S = state.cells_P["position"].astype(np.int64)
        pairs_MY2HW = self._entry.order.taken(position_S, state.keys_YPC, state.values_YPC)
        return state, pairs_MY2HW[: self.config.front]

    def _place(
        self,
        context: LlamaContext,
        place_K: NDArray[Any],
        *,
        start: int,
        sequence: int,
        parts: _Parts,
        objective: Objective,
    ) -> int:
        """Put keys and values behind what a sequence has read; there is no next token yet."""
        template, _ = self._front(objective, min(context.sequences, 2))
        held, end = context.save(sequence), start + len(place_K)
        state = SequenceState.room(held, template, end)
        if start:
            before = SequenceState.read(held, template.layout)
            cell_P = np.argsort(before.cells_P["position"])
            state.keys_YPC[:, :start] = before.keys_YPC[:, cell_P]
            state.values_YPC[:, :start] = before.values_YPC[:, cell_P]
        for at, size, numbers in parts.known:
            first, last = max(start, at), min(end, at + size)
            if first < last:
                own = slice(first, last)
                cells = state.keys_YPC[:, own], state.values_YPC[:, own]
                pairs_PY2HW = numbers(first - at, last - at)
                self._entry.order.place(pairs_PY2HW, parts.position_S[own], *cells, context.rounded)
        context.load(sequence, state.data)
        return -1


@dataclass(kw_only=True, eq=False)
class _Parts:
    """Reads the parts of a prefix of keys and values, one behind the other.

    Attributes:
        position_S: Where each place of the prefix is wanted.
        known: The keys and values among them.
        at: First place of the next part.
        place: Puts keys and values into a cache: all that follow one another, at once.
    """

    position_S: Positions
    known: list[Placed] = field(default_factory=list)
    at: int = 0
    place: Callable[..., int] = field(init=False)

    def placed(self, several: Iterable[tuple[int, Numbers]]) -> Run:
        """Keys and values of so many places each."""
        begin = self.at
        for size, numbers in several:
            self.known.append(Placed(self.at, size, numbers))
            self.at += size
        return Run(np.arange(begin, self.at), self.place)

    def read_slots(self, slots_KD: FloatArray) -> Run:
        raise other_form("embeddings", "key-values")

    def read_tokens(self, token_ids: TokenIds) -> Run:
        if len(token_ids) and self.position_S[self.at] != self.at:
            raise InputError(
                "llama.cpp does not write back slots and verbatim tokens in one.",
                got=f"{len(token_ids)} verbatim tokens among slots",
                expected="spans that are written back each on its own",
                fix="Use --runtime torch.",
            )
        self.at += len(token_ids)
        return Run(token_ids, LlamaContext.read_tokens)

    def read_key_values(self, slots: KeyValueSlots) -> Run:
        return self.placed((len(run), functools.partial(_numbers, run)) for run in slots.runs)


def _numbers(run: KeyValueRun, first: int, end: int) -> FloatArray:
    """Keys and values of some slots of a run."""
    return run.pairs_KY2HW[first:end]
