"""Refinement: how faithful slots become with optimiser steps, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icae.compression.refinement import RefineConfig, Refined, RefineTask, refine
from icae.compression.teachers import TeacherWriter
from icae.config.spans import slot_count
from icae.config.types import FloatArray, TokenIds
from icae.engine import Icae
from icae.errors import ConfigError, InputError
from icae.evals.contexts import Window
from icae.evals.continuation import slot_losses, token_losses
from icae.evals.experiment import Axis, Cell, Column, Grid, Panel, Row, plain, require_fit
from icae.evals.memories import STEP_COST, ContextMemory, Tick, write_back
from icae.evals.metrics import mean_estimate
from icae.evals.reconstruction import check_greedy, reading_cost, text_figures, writing_cost
from icae.evals.starts import STARTS, start_memories

CONTINUATION = 32
"""Scored tokens of the true continuation."""
BACKWARD_COST = 2
"""Forward passes that take about as long as one backward pass."""
BY_STEP = Axis(key="step", label="refinement steps")


@dataclass(frozen=True, kw_only=True)
class RefinementSettings(Grid):
    """Settings of the experiment.

    Attributes:
        starts: What the slots are refined from, of `STARTS`.
        steps: Optimiser steps for each span.
        every: Steps between two rows.
        greedy: Spans, of the samples, that are also decoded freely, before and after.
        kl: Weight of the KL term; 0 refines for writing back alone.
        learning_rate: Adam learning rate as a share of the RMS of the input embeddings.
    """

    starts: tuple[str, ...] = STARTS
    steps: int = 60
    every: int = 10
    samples: int = 8
    greedy: int = 8
    kl: float = 1.0
    learning_rate: float = 0.08

    name = "refinement"
    title = "Fidelity of slots by refinement steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_greedy(self.greedy, self.samples)
        unknown = [start for start in self.starts if start not in STARTS]
        if unknown or not self.starts:
            raise ConfigError(
                "The slots cannot be started from that.",
                got=", ".join(map(repr, unknown)) or "nothing",
                expected="one or more of " + ", ".join(STARTS),
            )
        if self.every < 1:
            raise ConfigError(
                "The steps between two rows are out of range.", got=str(self.every), expected=">= 1"
            )
        self.config()  # checks the other values

    def config(self) -> RefineConfig:
        """How spans are refined: to the last step, or until every token leads by the margin.

        Raises:
            ConfigError: If a value is out of range.
        """
        return RefineConfig(
            steps=self.steps,
            target=1.0,
            learning_rate=self.learning_rate,
            kl_weight=self.kl,
            patience=self.steps,
            slack=math.inf,
        )

    @property
    def window(self) -> int:
        """The longest span, the token that leads over, and the scored tokens."""
        return max(self.lengths) + 1 + CONTINUATION

    @property
    def places(self) -> tuple[int, ...]:
        """The steps that get a row: the first, every so many, and the last."""
        return tuple(sorted({*range(0, self.steps, self.every), self.steps}))

    def fixed(self) -> dict[str, Any]:
        """The settings besides lengths, ratios, starts and seed."""
        rest = super().fixed()
        del rest["starts"]
        return rest

    def build(self, engine: Icae, windows: Sequence[Window]) -> Refinement:
        """The experiment on a loaded model and drawn windows."""
        return Refinement(engine, self, windows)


class Refinement:
    """Slots refined from several starts, by length, ratio and optimiser step.

    Args:
        engine: Adapter and base model.
        settings: Lengths, ratios, starts, steps, numbers of spans.
        windows: Spans and what follows them.

    Raises:
        InputError: If a length is above the adapter's span length, or does not fit the
            decoder.
    """

    columns = (
        Column(title="length", key="length"),
        Column(title="ratio", key="ratio"),
        Column(title="start", key="text"),
        Column(title="slots", key="slots"),
        Column(title="step", key="step"),
        Column(title="token accuracy", key="accuracy", digits=3),
        Column(title="best so far", key="best_accuracy", digits=3),
        Column(title="done", key="done", digits=3),
        Column(title="greedy BLEU-4", key="bleu", digits=1),
        Column(title="exact prefix", key="prefix_share", digits=3),
        Column(title="next-token loss (nats/token)", key="loss", digits=3),
        Column(title="behind full context", key="full_loss", digits=3),
        Column(title="behind no context", key="bare_loss", digits=3),
        Column(title="seconds a span", key="seconds", digits=2),
    )
    panels = (
        Panel(key="accuracy", title="token accuracy, teacher-forced", limits=(0, 1), axis=BY_STEP),
        Panel(key="loss", title="loss of the continuation (nats per token)", axis=BY_STEP),
        Panel(key="bleu", title="BLEU-4 of greedy text", limits=(0, None), axis=BY_STEP),
        Panel(
            key="prefix_share",
            title="share of tokens before the first error",
            limits=(0, None),
            axis=BY_STEP,
        ),
    )
    notes = (
        "Token accuracy: teacher-forced, of the slots after that many steps; a span whose "
        "every token leads by a margin is done, stops and stays at 1. Best so far: of the best "
        "slots met. Done: share of the spans.",
        "Greedy BLEU-4 (corpus; sacrebleu) and exact prefix are of the best slots met after "
        "that many steps; the next-token loss is of the start slots in the first row of a start "
        "and of the best slots met in its last row.",
        f"Next-token loss: the true continuation behind slots and [LM] token, {CONTINUATION} "
        "tokens under teacher forcing. The token after the span is read by all and scored by "
        "none; behind full and no context there is no objective token.",
        "Chunk-means: the mean input embedding of each slot's chunk. Noise: normal, of the RMS "
        "of the input embeddings. Seconds: refinement and writing its teachers, not the start.",
    )

    def __init__(
        self, engine: Icae, settings: RefinementSettings, windows: Sequence[Window]
    ) -> None:
        self.engine, self.settings, self.windows = engine, settings, windows
        longest, most = max(settings.lengths), engine.config.span_length
        if longest > most:
            raise InputError(
                "Only single spans are refined here.",
                got=f"a length of {longest} tokens",
                expected=f"at most the adapter's span length, {most}",
                fix="Lower --lengths.",
            )
        require_fit(engine, max(2 * longest, settings.window) + 1)

    def cells(self) -> list[Cell]:
        """Every length, ratio and start."""
        return [
            Cell(length=length, ratio=ratio, text=start)
            for length in self.settings.lengths
            for ratio in self.settings.ratios
            for start in self.settings.starts
        ]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        settings, after = self.settings, CONTINUATION + 1
        scored = settings.samples * (3 * cell.length + 4 * after)
        refined = settings.samples * self._span_cost(cell)
        encoded = reading_cost(cell, settings.samples, passes=0)
        written = len(settings.places) * writing_cost(cell, settings.greedy)
        return encoded + scored + refined + written

    def _span_cost(self, cell: Cell) -> int:
        """The reading that would take as long as refining one span."""
        assert cell.ratio is not None
        slots, taught = slot_count(cell.length, cell.ratio), self.settings.kl > 0
        places = slots + cell.length + (slots + CONTINUATION) * taught
        passes = self.settings.steps * (1 + BACKWARD_COST) + 1
        return places * passes + STEP_COST * CONTINUATION * taught

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The rows of a cell, one for each reported step."""
        assert cell.ratio is not None
        assert cell.text is not None
        settings, after = self.settings, CONTINUATION + 1
        contexts = [window.context(cell.length, after=after) for window in self.windows]
        before = start_memories(
            self.engine.runtime,
            contexts,
            cell.text,
            ratio=cell.ratio,
            seed=settings.seed,
            tick=tick,
        )
        span_cost = self._span_cost(cell)
        refined, trail = self._refined(contexts, before, lambda: tick(span_cost))
        seconds = [r.seconds for r in refined]
        best = trail[settings.steps]
        following = [window.context(after) for window in self.windows]
        raw = self._raw_losses(contexts, following, tick)
        ends = {
            0: self._slot_figures(following, before, tick),
            settings.steps: self._slot_figures(following, best, tick)
            | {"seconds": plain(mean_estimate(seconds, seed=settings.seed))},
        }
        named = {
            "kind": f"{cell.length} tokens, {cell.text}",
            "series": f"{cell.length} tokens, {cell.ratio:g}x, {cell.text}",
            "slots": len(before[0].slots_KD),
        }
        made: list[Row] = []
        text: Row = {}
        shown: list[ContextMemory] = []
        for step in settings.places:
            if not _same_slots(shown, trail[step]):  # else spans are done: the text is the same
                shown = trail[step]
                text = self._text_figures(contexts, shown, tick)
            row = {**named, "step": step, **self._accuracy(refined, step)}
            more = _joined(text, raw | ends[step]) if step in ends else text
            made.append(_joined(row, more))
        return made

    def _refined(
        self,
        contexts: Sequence[TokenIds],
        starts: Sequence[ContextMemory],
        on_span: Callable[[], None],
    ) -> tuple[list[Refined], dict[int, list[ContextMemory]]]:
        """Every span refined, and the best slots of all at each reported step."""
        model, settings = self.engine.runtime.model, self.settings
        writer = TeacherWriter(
            model=model, tokenizer=self.engine.tokenizer, length=CONTINUATION, seed=settings.seed
        )
        tasks = [
            RefineTask(token_ids=ids, slots_KD=start.slots_KD)
            for ids, start in zip(contexts, starts, strict=True)
        ]
        trail = {step: list(starts) for step in settings.places}

        def keep(index: int, step: int, slots_KD: FloatArray) -> None:
            for place in settings.places:
                if place >= step:  # a span that is done keeps its slots
                    trail[place][index] = replace(starts[index], slots_KD=slots_KD)

        done: dict[int, Refined] = {}
        config = settings.config()
        for index, refined in refine(model, tasks, config, teach=writer.write, on_slots=keep):
            done[index] = refined
            on_span()
        return [done[i] for i in range(len(tasks))], trail

    def _accuracy(self, refined: Sequence[Refined], step: int) -> Row:
        """Figures of all spans after so many steps."""
        shares = [share_after(r.history, step) for r in refined]
        best = [max(r.history[: step + 1]) for r in refined]
        return {
            "samples": len(refined),
            "accuracy": plain(mean_estimate(shares, seed=self.settings.seed)),
            "best_accuracy": plain(mean_estimate(best, seed=self.settings.seed)),
            "done": float(np.mean([r.reached and r.steps <= step for r in refined])),
            "per_context": {"accuracy": shares},
        }

    def _raw_losses(
        self, contexts: Sequence[TokenIds], following: Sequence[TokenIds], tick: Tick
    ) -> Row:
        """The next-token loss behind the full context and behind none."""
        runtime, seed = self.engine.runtime, self.settings.seed
        full = token_losses(runtime, contexts, following, tick=tick)
        bare = token_losses(runtime, [ids[:0] for ids in contexts], following, tick=tick)
        return {
            "full_loss": plain(mean_estimate(full, seed=seed)),
            "bare_loss": plain(mean_estimate(bare, seed=seed)),
        }

    def _slot_figures(
        self,
        following: Sequence[TokenIds],
        memories: Sequence[ContextMemory],
        tick: Tick,
    ) -> Row:
        """The next-token loss behind finished slots."""
        losses = slot_losses(self.engine.runtime, memories, following, tick=tick)
        return {
            "loss": plain(mean_estimate(losses, seed=self.settings.seed)),
            "per_context": {"loss": losses.tolist()},
        }

    def _text_figures(
        self, contexts: Sequence[TokenIds], memories: Sequence[ContextMemory], tick: Tick
    ) -> Row:
        """What is measured of slots by free greedy decoding."""
        greedy = self.settings.greedy
        written = write_back(self.engine.runtime, memories[:greedy], tick=tick)
        if not written:
            return {"per_context": {}}
        return text_figures(self.engine, contexts[:greedy], written, self.settings.seed)


def _same_slots(before: Sequence[ContextMemory], now: Sequence[ContextMemory]) -> bool:
    """Whether the slots are the very ones of before."""
    return len(before) == len(now) and all(
        old.slots_KD is new.slots_KD for old, new in zip(before, now, strict=True)
    )


def _joined(row: Row, more: Row) -> Row:
    """Two rows in one, with the figures by context of both."""
    return {**row, **more, "per_context": row["per_context"] | more["per_context"]}


def share_after(history: Sequence[float], step: int) -> float:
    """Fidelity after so many steps; a span that stopped before keeps its last one.

    Args:
        history: Fidelity before the first step and after each one.
        step: Steps taken.
    """
    return history[min(step, len(history) - 1)]
