"""Held-out text behind the memory and its trained rivals: written back, and gone on from.

Question answering says little of rivals that were trained on a small budget without
questions; what they hold of a text shows here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icae.config.types import TokenIds
from icae.engine import Engine
from icae.evals.bootstrap import mean_figure
from icae.evals.contexts import Window, draw_windows, read_documents
from icae.evals.decoding import (
    NO_MEMORY,
    TokenScores,
    led_continuation,
    score_tasks,
    slot_budget,
    token_losses,
)
from icae.evals.experiment import Cell, check_least, check_lengths, require_fit
from icae.evals.held import Hold
from icae.evals.metadata import data_hashes
from icae.evals.reconstruction import check_greedy, joined, text_figures, token_figures
from icae.evals.respondents import FULL, NOTHING
from icae.evals.tables import Row
from icae.model.objectives import autoencoding

LAST = "last tokens"


@dataclass(frozen=True, kw_only=True)
class RivalTexts:
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
        check_lengths(self.lengths, self.samples)
        check_least("The continuation is out of range.", self.tokens, 1, "tokens")
        check_greedy(self.greedy, self.samples)

    def fixed(self) -> dict[str, Any]:
        """The settings that make rows comparable, with the hashes of the texts."""
        return {**asdict(self), "paths": data_hashes(self.paths)}

    def prepare(self, engine: Engine, holds: Mapping[str, Hold], *, seed: int) -> HeldOutText:
        """Draw the windows.

        Raises:
            InputError: If the texts cannot be used, or a length does not fit the decoder.
        """
        longest = max(self.lengths)
        size = longest + 1 + self.tokens
        require_fit(engine, size + longest)
        documents = read_documents(self.paths, engine.tokenizer)
        drawn = draw_windows(documents, size=size, samples=self.samples, seed=seed)
        return HeldOutText(
            engine=engine, settings=self, holds=holds, windows=drawn.windows, seed=seed
        )


@dataclass(frozen=True, kw_only=True)
class HeldOutText:
    """Every length, ratio and holder, beside full context, none, and truncation.

    Attributes:
        engine: Adapter and base model.
        settings: Lengths and numbers of contexts.
        holds: Who holds text, by name.
        windows: Contexts and what follows them.
        seed: Seed of the bootstrap.
    """

    engine: Engine
    settings: RivalTexts
    holds: Mapping[str, Hold]
    windows: tuple[Window, ...]
    seed: int

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
        bound = [(ratio, name) for ratio in ratios for name in (*self.holds, LAST)]
        return [
            Cell(dataset=f"text of {n} tokens", length=n, ratio=ratio, reader=name)
            for n in self.settings.lengths
            for ratio, name in (*free, *bound)
        ]

    def measure(self, cell: Cell, name: str) -> Row:
        """The row of a cell."""
        after = self.settings.tokens + 1
        contexts = [window.context(cell.length, after=after) for window in self.windows]
        following = [window.context(after) for window in self.windows]
        measured = self._held if name in self.holds else self._plain
        figures = measured(cell, name, contexts, following)
        return {"kind": name, "series": name, "samples": len(contexts), **figures}

    def _plain(
        self, cell: Cell, name: str, contexts: Sequence[TokenIds], following: Sequence[TokenIds]
    ) -> Row:
        """The decoder behind raw tokens; without any, also what it guesses behind [AE]."""
        runtime = self.engine.runtime
        kept = {FULL: cell.length, NOTHING: 0}.get(name)
        if kept is None:
            kept = slot_budget(cell.length, self.engine.config, cell.known_ratio)
        losses = token_losses(runtime, [ids[len(ids) - kept :] for ids in contexts], following)
        row = self._continued(kept, [float(loss) for loss in losses])
        if kept:
            return row
        tasks = [autoencoding(ids) for ids in contexts]
        alone = score_tasks(runtime, [NO_MEMORY] * len(tasks), tasks)
        return joined(row, self._written(alone))

    def _held(
        self, cell: Cell, name: str, contexts: Sequence[TokenIds], following: Sequence[TokenIds]
    ) -> Row:
        """The decoder behind what a holder made of the contexts."""
        begin = time.perf_counter()
        held = self.holds[name](contexts, cell.known_ratio)
        seconds = (time.perf_counter() - begin) / len(contexts)
        scores = held.score([led_continuation(ids) for ids in following])
        row = self._continued(held.positions[0], [float(s.losses_T.mean()) for s in scores])
        row = joined(row, self._written(held.score([autoencoding(ids) for ids in contexts])))
        greedy = self.settings.greedy
        if greedy:
            begin = time.perf_counter()
            written = held.pick(range(greedy)).write_back()
            seconds += (time.perf_counter() - begin) / greedy
            row = joined(row, text_figures(self.engine, contexts, written, seed=self.seed))
        return {**row, "seconds": round(seconds, 3)}

    def _continued(self, positions: int, losses: Sequence[float]) -> Row:
        """Figures of what follows the contexts."""
        return {
            "context_positions": positions,
            "continuation_loss": mean_figure(np.array(losses), seed=self.seed),
            "per_context": {"continuation_loss": list(losses)},
        }

    def _written(self, scores: Sequence[TokenScores]) -> Row:
        """Figures of contexts written back under teacher forcing."""
        row = token_figures(scores, seed=self.seed)
        row["ae_accuracy"] = row.pop("accuracy")
        return row
