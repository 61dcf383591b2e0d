"""Held-out text behind the memory and its trained rivals: written back, and gone on from.

Question answering says little of rivals that were trained on a small budget without
questions; what they hold of a text shows here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from icae.config.spans import plan_spans
from icae.config.types import TokenIds
from icae.decode.torch import TorchRuntime
from icae.engine import Icae
from icae.errors import ConfigError
from icae.evals.contexts import Window, draw_windows, read_documents
from icae.evals.continuation import led_continuation, token_losses
from icae.evals.experiment import Cell, Row, plain, require_fit
from icae.evals.memories import (
    ContextMemory,
    Tick,
    TokenScores,
    no_memory,
    score_tasks,
    write_back,
)
from icae.evals.metrics import mean_estimate
from icae.evals.qa import FULL, NOTHING
from icae.evals.reconstruction import check_greedy, text_figures, token_figures, writing_cost
from icae.model.objectives import DecoderTask, autoencoding

LAST = "last tokens"


class HeldTexts(Protocol):
    """Contexts in the form in which the decoder reads them."""

    @property
    def positions(self) -> int:
        """Decoder positions of the first context."""
        ...

    def score(self, tasks: Sequence[DecoderTask], tick: Tick) -> list[TokenScores]:
        """Teacher forcing of the decoder, a task for each context."""
        ...

    def write_back(self, count: int, tick: Tick) -> list[tuple[int, ...]]:
        """Greedy reconstruction of the first contexts, each to its own length."""
        ...


class Holder(Protocol):
    """Brings contexts into a form that the decoder can write back and go on from."""

    def hold(self, contexts: Sequence[TokenIds], ratio: float, tick: Tick) -> HeldTexts:
        """Read contexts.

        Args:
            contexts: Token ids of each.
            ratio: Context tokens per decoder position.
            tick: Called with the tokens that went through the model.
        """
        ...


Encode = Callable[[Sequence[TokenIds], float, Tick], list[ContextMemory]]


@dataclass(frozen=True, kw_only=True)
class SlotHolder:
    """Holds contexts in slots.

    Attributes:
        runtime: Runs the decoder.
        encode: Makes the slots.
    """

    runtime: TorchRuntime
    encode: Encode

    def hold(self, contexts: Sequence[TokenIds], ratio: float, tick: Tick) -> HeldSlots:
        """Compress the contexts."""
        return HeldSlots(runtime=self.runtime, memories=tuple(self.encode(contexts, ratio, tick)))


@dataclass(frozen=True, kw_only=True)
class HeldSlots:
    """Contexts as slots.

    Attributes:
        runtime: Runs the decoder.
        memories: The slots of each context.
    """

    runtime: TorchRuntime
    memories: tuple[ContextMemory, ...]

    @property
    def positions(self) -> int:
        """Decoder positions of the first context."""
        return len(self.memories[0].slots_KD)

    def score(self, tasks: Sequence[DecoderTask], tick: Tick) -> list[TokenScores]:
        """Teacher forcing, a task for each context."""
        return score_tasks(self.runtime, self.memories, tasks, tick=tick)

    def write_back(self, count: int, tick: Tick) -> list[tuple[int, ...]]:
        """Greedy reconstruction of the first contexts."""
        return write_back(self.runtime, self.memories[:count], tick=tick)


@dataclass(frozen=True, kw_only=True)
class RivalTextSettings:
    """What is measured of held-out text.

    Attributes:
        paths: Corpus files or folders.
        lengths: Context lengths in tokens.
        samples: Contexts of each length.
        greedy: Contexts of these that are also written back freely.
        tokens: Scored tokens of the continuation.
    """

    paths: tuple[Path, ...]
    lengths: tuple[int, ...] = (32, 64)
    samples: int = 64
    greedy: int = 16
    tokens: int = 32

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 2:
            got = ", ".join(map(str, self.lengths)) or "none"
            raise ConfigError("The context lengths are out of range.", got=got, expected=">= 2")
        if self.samples < 2:
            raise ConfigError(
                "Too few contexts to compare.", got=str(self.samples), expected="samples >= 2"
            )
        if self.tokens < 1:
            raise ConfigError(
                "The continuation is out of range.", got=str(self.tokens), expected=">= 1 token"
            )
        check_greedy(self.greedy, self.samples)


class HeldOutText:
    """Every length, ratio and holder, beside full context, none, and truncation.

    Args:
        engine: Adapter and base model.
        settings: Texts, lengths and numbers of contexts.
        holders: Who holds text, by name.
        seed: Seed of the draw and of the bootstrap.
    """

    def __init__(
        self, engine: Icae, settings: RivalTextSettings, holders: Mapping[str, Holder], *, seed: int
    ) -> None:
        self.engine, self.settings, self.holders, self.seed = engine, settings, holders, seed
        size = max(settings.lengths) + 1 + settings.tokens
        require_fit(engine, size + max(settings.lengths))
        documents = read_documents(settings.paths, engine.tokenizer)
        drawn = draw_windows(documents, size=size, samples=settings.samples, seed=seed)
        self.windows: tuple[Window, ...] = drawn.windows
        self.lengths = {f"text of {n} tokens": n for n in settings.lengths}

    @property
    def readers(self) -> tuple[str, ...]:
        """Every name that stands in a row."""
        return (FULL, NOTHING, LAST, *self.holders)

    @property
    def note(self) -> str:
        """How to read the rows of held-out text."""
        settings = self.settings
        return (
            f"Text: {settings.samples} held-out contexts of each length, written back under "
            f"teacher forcing (AE loss, AE accuracy), {settings.greedy} of them also by free "
            "greedy decoding (BLEU-4), and gone on from (loss of the "
            f"{settings.tokens} tokens after the next one). Last tokens: truncation, as many raw "
            "tokens as there are slots. No context: the decoder behind the memory's [AE] token "
            "alone. Seconds: holding a context and writing it back."
        )

    def cells(self, ratios: Sequence[float]) -> list[Cell]:
        """For each length the rows that no ratio changes, then each ratio."""
        free = [(None, FULL), (None, NOTHING)]
        bound = [(ratio, name) for ratio in ratios for name in (*self.holders, LAST)]
        return [
            Cell(dataset=dataset, length=length, ratio=ratio, reader=name)
            for dataset, length in self.lengths.items()
            for ratio, name in (*free, *bound)
        ]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        settings = self.settings
        read = settings.samples * (2 * cell.length + settings.tokens)
        held = cell.reader in self.holders
        return read + (writing_cost(cell, settings.greedy) if held else 0)

    def measure(self, cell: Cell, tick: Tick) -> Row:
        """The row of a cell."""
        after = self.settings.tokens + 1
        contexts = [window.context(cell.length, after=after) for window in self.windows]
        following = [window.context(after) for window in self.windows]
        assert cell.reader is not None
        if cell.reader in self.holders:
            figures = self._held(cell, contexts, following, tick)
        else:
            figures = self._plain(cell, contexts, following, tick)
        return {"kind": cell.reader, "series": cell.reader, "samples": len(contexts), **figures}

    def _plain(
        self,
        cell: Cell,
        contexts: Sequence[TokenIds],
        following: Sequence[TokenIds],
        tick: Tick,
    ) -> Row:
        """The decoder behind raw tokens; without any, also what it guesses behind [AE]."""
        runtime, kept = self.engine.runtime, self._kept(cell)
        ends = [ids[len(ids) - kept :] for ids in contexts]
        losses = token_losses(runtime, ends, following, tick=tick)
        row: dict[str, Any] = {
            "context_positions": kept,
            "continuation_loss": plain(mean_estimate(losses, seed=self.seed)),
            "per_context": {"continuation_loss": losses.tolist()},
        }
        if kept:
            return row
        tasks = [autoencoding(ids) for ids in contexts]
        alone = [no_memory(runtime)] * len(tasks)
        return _joined(row, self._written(score_tasks(runtime, alone, tasks, tick=tick)))

    def _kept(self, cell: Cell) -> int:
        """Raw tokens before the continuation: all, none, or as many as there are slots."""
        if cell.ratio is None:
            return cell.length if cell.reader == FULL else 0
        span_length = self.engine.config.span_length
        plans = plan_spans(cell.length, span_length=span_length, ratio=cell.ratio)
        return sum(plan.slots for plan in plans)

    def _written(self, scores: Sequence[TokenScores]) -> Row:
        """Figures of contexts written back under teacher forcing."""
        row = token_figures(scores, self.seed)
        row["ae_accuracy"] = row.pop("accuracy")
        return row

    def _held(
        self,
        cell: Cell,
        contexts: Sequence[TokenIds],
        following: Sequence[TokenIds],
        tick: Tick,
    ) -> Row:
        """The decoder behind what a holder made of the contexts."""
        assert cell.reader is not None
        assert cell.ratio is not None
        begin = time.perf_counter()
        held = self.holders[cell.reader].hold(contexts, cell.ratio, tick)
        holding = (time.perf_counter() - begin) / len(contexts)
        losses = np.array(
            [s.losses_T.mean() for s in held.score([*map(led_continuation, following)], tick)]
        )
        row: dict[str, Any] = {
            "context_positions": held.positions,
            "continuation_loss": plain(mean_estimate(losses, seed=self.seed)),
            "per_context": {"continuation_loss": losses.tolist()},
            "seconds": round(holding, 3),
        }
        row = _joined(row, self._written(held.score([*map(autoencoding, contexts)], tick)))
        greedy = self.settings.greedy
        if not greedy:
            return row
        begin = time.perf_counter()
        written = held.write_back(greedy, tick)
        writing = (time.perf_counter() - begin) / greedy
        texts = text_figures(self.engine, contexts[:greedy], written, self.seed)
        return {**_joined(row, texts), "seconds": round(holding + writing, 3)}


def _joined(one: Row, other: Row) -> Row:
    """Figures of both rows."""
    return {**one, **other, "per_context": {**one["per_context"], **other["per_context"]}}
