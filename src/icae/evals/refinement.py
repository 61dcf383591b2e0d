"""Refinement: how faithful slots become with optimiser steps, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from icae.compression.refinement import RefineConfig, Refined, RefineTask, refine
from icae.compression.teachers import TeacherWriter
from icae.config.parsing import check
from icae.config.types import TokenIds
from icae.engine import Engine
from icae.errors import InputError
from icae.evals.bootstrap import context_figures, mean_figure
from icae.evals.decoding import (
    ContextMemory,
    encode_contexts,
    slot_losses,
    token_losses,
    write_back,
)
from icae.evals.experiment import (
    RATIOS,
    Cell,
    Material,
    TextExperiment,
    check_greedy,
)
from icae.evals.plots import lines_of
from icae.evals.reconstruction import joined, text_figures
from icae.evals.tables import Row, columns_of
from icae.memory.payload import ReadablePayload

CONTINUATION = 32
"""Scored tokens of the true continuation."""


@dataclass(frozen=True, kw_only=True)
class Refinement(TextExperiment):
    """Slots of single spans refined, by length, ratio and step.

    Attributes:
        steps: Optimiser steps for each span.
        every: Steps between two rows.
        greedy: Spans, of the samples, that are also decoded freely, before and after.
        kl: Weight of the KL term; 0 refines for writing back alone, None is the form's own.
        learning_rate: Adam learning rate as in `RefineConfig`.
    """

    steps: int = 60
    every: int = 10
    samples: int = 8
    greedy: int = 8
    kl: float | None = None
    learning_rate: float | None = None

    name = "refinement"
    title = "Fidelity of slots by refinement steps"
    question = "What does fidelity cost at compress time?"
    quick: ClassVar = {
        "ratios": (4.0,),
        "steps": 20,
        "samples": 2,
        "greedy": 2,
    }
    full: ClassVar = {"ratios": RATIOS[1:4], "samples": 32}
    columns = columns_of(
        "length ratio slots step accuracy best_accuracy done bleu prefix_share loss "
        "full_loss bare_loss seconds",
        loss="next-token loss (nats/token)",
        seconds="seconds a span",
    )
    plots = lines_of("accuracy loss bleu prefix_share", along="step")
    notes = (
        "Token accuracy: teacher-forced, of the slots after that many steps; a span whose "
        "every token leads by a margin is done, stops and stays at 1. Best so far: of the best "
        "slots met. Done: share of the spans.",
        "Greedy BLEU-4 (corpus; sacrebleu) and exact prefix are of the best slots met after "
        "that many steps; the next-token loss is of the encoder's slots in the first row of a "
        "ratio and of the best slots met in its last row.",
        f"Next-token loss: the true continuation behind slots and [LM] token, {CONTINUATION} "
        "tokens under teacher forcing. The token after the span is read by all and scored by "
        "none; behind full and no context there is no objective token.",
        "Seconds: refinement and writing its teachers, not encoding.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_greedy(self.greedy, self.samples)
        message = "The steps between two rows are out of range."
        check(self.every >= 1, message, self.every, "1 or more")
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
    def after(self) -> int:
        """The token that leads over, and the scored tokens."""
        return CONTINUATION + 1

    @property
    def positions(self) -> int:
        """The longest span, twice or with what follows it."""
        longest = max(self.lengths)
        return longest + max(longest, self.after) + 1

    @property
    def places(self) -> tuple[int, ...]:
        """The steps that get a row: the first, every so many, and the last."""
        return tuple(sorted({*range(0, self.steps, self.every), self.steps}))

    def prepare(self, engine: Engine, inputs: Sequence[Any]) -> Material:
        """Draw the windows.

        Raises:
            InputError: If a length is above the adapter's span length.
        """
        longest, most = max(self.lengths), engine.config.span_length
        if longest > most:
            raise InputError(
                "Only single spans are refined here.",
                got=f"a length of {longest} tokens",
                expected=f"at most the adapter's span length, {most}",
                fix="Lower --lengths.",
            )
        return super().prepare(engine, inputs)

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell, one for each reported step."""
        engine = material.engine
        contexts, following = self.contexts(material, cell), self.following(material)
        before = encode_contexts(engine.runtime, contexts, ratio=cell.known_ratio)
        refined, trail = self._refined(engine, contexts, before)
        nothing = [ids[:0] for ids in contexts]
        raw = {
            key: mean_figure(token_losses(engine.runtime, texts, following), seed=self.seed)
            for key, texts in (("full_loss", contexts), ("bare_loss", nothing))
        }
        written: dict[tuple[int, ...], Row] = {}  # of spans that are done the text is the same
        made: list[Row] = []
        for step, memories in trail.items():
            slots = tuple(map(id, memories))
            if self.greedy and slots not in written:
                texts = write_back(engine.runtime, memories[: self.greedy])
                written[slots] = text_figures(engine, contexts, texts, seed=self.seed)
            row: Row = {
                "kind": f"{cell.length} tokens",
                "series": f"{cell.length} tokens, {cell.times}",
                "slots": before[0].positions,
                "step": step,
                **self._accuracy(refined, step),
            }
            row = joined(row, written.get(slots, {"per_context": {}}))
            if step in (0, self.steps):
                losses = slot_losses(engine.runtime, memories, following).tolist()
                row = joined(row, raw | context_figures({"loss": losses}, seed=self.seed))
            made.append(row)
        made[-1]["seconds"] = mean_figure([r.seconds for r in refined], seed=self.seed)
        return made

    def _refined(
        self, engine: Engine, contexts: Sequence[TokenIds], starts: Sequence[ContextMemory]
    ) -> tuple[list[Refined], dict[int, list[ContextMemory]]]:
        """Every span refined, and the best slots of all at each reported step."""
        form = engine.runtime.form
        writer = TeacherWriter(
            decoder=form.model.decoder,
            tokenizer=engine.tokenizer,
            length=CONTINUATION,
            seed=self.seed,
        )
        tasks = [
            RefineTask(token_ids=ids, payload=start.parts[0])
            for ids, start in zip(contexts, starts, strict=True)
        ]
        trail = {step: list(starts) for step in self.places}

        def keep(index: int, step: int, payload: ReadablePayload) -> None:
            refined = ContextMemory(parts=(payload,), spans=starts[index].spans)
            for place in self.places:
                if place >= step:  # a span that is done keeps its slots
                    trail[place][index] = refined

        done = dict(refine(form, tasks, self.config(), teach=writer.write, on_slots=keep))
        return [done[i] for i in range(len(tasks))], trail

    def _accuracy(self, refined: Sequence[Refined], step: int) -> Row:
        """Figures of all spans after so many steps; one that stopped before keeps its last."""
        shares = [r.history[min(step, len(r.history) - 1)] for r in refined]
        best = [max(r.history[: step + 1]) for r in refined]
        return {
            "samples": len(refined),
            **context_figures({"accuracy": shares}, seed=self.seed),
            "best_accuracy": mean_figure(best, seed=self.seed),
            "done": float(np.mean([r.reached and r.steps <= step for r in refined])),
        }
