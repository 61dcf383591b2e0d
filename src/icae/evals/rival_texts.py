"""Held-out text behind the memory and its trained rivals: written back, and gone on from.

Question answering says little of rivals that were trained on a small budget without
questions; what they hold of a text shows here.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from icae.config.parsing import check
from icae.engine import Engine
from icae.evals.bootstrap import context_figures
from icae.evals.contexts import Window, draw_windows, read_documents
from icae.evals.decoding import (
    NO_MEMORY,
    TokenScores,
    led_continuation,
    mean_losses,
    peer_budget,
    plain_scores,
    score_tasks,
)
from icae.evals.experiment import Cell, Material, check_greedy, check_lengths, require_fit
from icae.evals.metadata import data_hashes
from icae.evals.readers import FULL, NOTHING
from icae.evals.reconstruction import joined, text_figures, token_figures
from icae.evals.tables import Row
from icae.model.objectives import autoencoding

LAST = "last tokens"


@dataclass(frozen=True, kw_only=True)
class RivalTexts:
    """What is measured of held-out text: every length, ratio and holder.

    Beside them stand full context, none, and truncation.

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
        check_greedy(self.greedy, self.samples)
        message = "The continuation is out of range."
        check(self.tokens >= 1, message, self.tokens, "1 or more tokens")

    def fixed(self) -> dict[str, Any]:
        """The settings that make rows comparable, with the hashes of the texts."""
        return {**asdict(self), "paths": data_hashes(self.paths)}

    def draw(self, engine: Engine, *, seed: int) -> tuple[Window, ...]:
        """Draw the windows.

        Raises:
            InputError: If the texts cannot be used, or a length does not fit the decoder.
        """
        longest = max(self.lengths)
        size = longest + 1 + self.tokens
        require_fit(engine, size + longest)
        documents = read_documents(self.paths, engine.tokenizer)
        return draw_windows(documents, size=size, samples=self.samples, seed=seed).windows

    @property
    def note(self) -> str:
        """How to read the rows of held-out text."""
        return (
            f"Text: {self.samples} held-out contexts of each length, written back under "
            f"teacher forcing (AE loss, AE accuracy), {self.greedy} of them also by free "
            "greedy decoding (BLEU-4), and gone on from (loss of the "
            f"{self.tokens} tokens after the next one). Last tokens: truncation, as many raw "
            "tokens as the memory takes. No context: the decoder behind the memory's [AE] token "
            "alone. Seconds: holding a context and writing it back."
        )

    def cells(self, ratios: Sequence[float], holders: Collection[str]) -> list[Cell]:
        """For each length the rows that no ratio changes, then each ratio."""
        free = [(None, FULL), (None, NOTHING)]
        bound = [(ratio, name) for ratio in ratios for name in (*holders, LAST)]
        return [
            Cell(dataset=f"text of {n} tokens", length=n, ratio=ratio, reader=name)
            for n in self.lengths
            for ratio, name in (*free, *bound)
        ]

    def measure(self, material: Material, cell: Cell, *, seed: int) -> Row:
        """The row of a cell."""
        name = material.name(cell.reader)
        measured = self._held if name in material.holds else self._plain
        figures = measured(material, cell, name, seed)
        return {"kind": name, "series": name, "samples": self.samples, **figures}

    def _plain(self, material: Material, cell: Cell, name: str, seed: int) -> Row:
        """The decoder behind raw tokens; without any, also what it guesses behind [AE]."""
        engine, after = material.engine, self.tokens + 1
        kept = {FULL: cell.length, NOTHING: 0}.get(name)
        if kept is None:
            kept = peer_budget(cell.length, engine.config, cell.known_ratio)
        tasks = [
            led_continuation(window.ids[-after:], context=window.context(kept, after=after))
            for window in material.windows
        ]
        row = _continued(kept, plain_scores(engine.runtime, tasks), seed)
        if kept:
            return row
        tasks = [autoencoding(ids) for ids in material.contexts(cell.length, after=after)]
        alone = score_tasks(engine.runtime, [NO_MEMORY] * len(tasks), tasks)
        return joined(row, _written(alone, seed))

    def _held(self, material: Material, cell: Cell, name: str, seed: int) -> Row:
        """The decoder behind what a holder made of the contexts."""
        after = self.tokens + 1
        contexts = material.contexts(cell.length, after=after)
        begin = time.perf_counter()
        held = material.holds[name](contexts, cell.known_ratio)
        seconds = (time.perf_counter() - begin) / len(contexts)
        gone_on = held.score([led_continuation(ids) for ids in material.contexts(after, after=0)])
        row = _continued(held.positions[0], gone_on, seed)
        row = joined(row, _written(held.score([autoencoding(ids) for ids in contexts]), seed))
        if self.greedy:
            begin = time.perf_counter()
            written = held.pick(range(self.greedy)).write_back()
            seconds += (time.perf_counter() - begin) / self.greedy
            row = joined(row, text_figures(material.engine, contexts, written, seed=seed))
        return {**row, "seconds": round(seconds, 3)}


def _continued(positions: int, scores: Sequence[TokenScores], seed: int) -> Row:
    """Figures of what follows the contexts."""
    losses = {"continuation_loss": mean_losses(scores).tolist()}
    return {"context_positions": positions, **context_figures(losses, seed=seed)}


def _written(scores: Sequence[TokenScores], seed: int) -> Row:
    """Figures of contexts written back under teacher forcing."""
    row = token_figures(scores, seed=seed)
    row["ae_accuracy"] = row.pop("accuracy")
    return row
