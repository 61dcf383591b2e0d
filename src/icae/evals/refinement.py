"""Refinement: how faithful slots become with optimiser steps, and what that costs.

Shape legend: K slots, D hidden size, L tokens of a span.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from icae.compression.refinement import RefineConfig, Refined, RefineTask, refine
from icae.compression.teachers import TeacherWriter
from icae.config.spans import chunk_of_tokens, slot_count
from icae.config.types import FloatArray, TokenIds
from icae.decode.torch import TorchRuntime
from icae.engine import Engine
from icae.errors import ConfigError, InputError
from icae.evals.bootstrap import mean_figure
from icae.evals.decoding import (
    ContextMemory,
    encode_contexts,
    slot_losses,
    token_losses,
    write_back,
)
from icae.evals.experiment import RATIOS, Cell, HeldOut, TextExperiment, check_least
from icae.evals.plots import Lines
from icae.evals.reconstruction import check_greedy, joined, text_figures
from icae.evals.tables import Row, columns_of
from icae.memory.payload import ReadablePayload
from icae.model import IcaeModel
from icae.model.around import embed
from icae.model.encoder import chunk_means
from icae.model.key_values import KeyValueModel

CONTINUATION = 32
"""Scored tokens of the true continuation."""
STARTS = ("encoder", "chunk-means", "noise")
"""What slots are refined from."""


@dataclass(frozen=True, kw_only=True)
class Refinement(TextExperiment):
    """Slots of single spans refined from several starts, by length, ratio and step.

    Attributes:
        starts: What the slots are refined from, of `STARTS`.
        steps: Optimiser steps for each span.
        every: Steps between two rows.
        greedy: Spans, of the samples, that are also decoded freely, before and after.
        kl: Weight of the KL term; 0 refines for writing back alone, None is the form's own.
        learning_rate: Adam learning rate as in `RefineConfig`.
    """

    starts: tuple[str, ...] = STARTS
    steps: int = 60
    every: int = 10
    samples: int = 8
    greedy: int = 8
    kl: float | None = None
    learning_rate: float | None = None

    name = "refinement"
    title = "Fidelity of slots by refinement steps"
    question = "What does fidelity cost at compress time?"
    columns = columns_of(
        "length ratio text slots step accuracy best_accuracy done bleu prefix_share loss "
        "full_loss bare_loss seconds",
        text="start",
        loss="next-token loss (nats/token)",
        seconds="seconds a span",
    )
    plots = (
        Lines(key="accuracy", title="token accuracy, teacher-forced", limits=(0, 1), along="step"),
        Lines(key="loss", title="loss of the continuation (nats per token)", along="step"),
        Lines(key="bleu", title="BLEU-4 of greedy text", limits=(0, None), along="step"),
        Lines(
            key="prefix_share",
            title="share of tokens before the first error",
            limits=(0, None),
            along="step",
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

    @classmethod
    def quick(cls, span: int) -> Self:
        """Two spans at 4x, 20 steps from the encoder's slots."""
        return cls(
            lengths=(span,), ratios=(4.0,), starts=("encoder",), steps=20, samples=2, greedy=2
        )

    @classmethod
    def full(cls, span: int) -> Self:
        """4x to 16x from every start."""
        return cls(lengths=(span,), ratios=RATIOS[1:], samples=32)

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
        check_least("The steps between two rows are out of range.", self.every, 1)
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

    def fixed(self) -> dict[str, Any]:
        """The settings besides lengths, ratios, starts and seed."""
        rest = super().fixed()
        del rest["starts"]
        return rest

    def prepare(self, engine: Engine, inputs: Sequence[Any]) -> HeldOut:
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

    def cells(self, material: HeldOut) -> list[Cell]:
        """Every length, ratio and start."""
        return [
            replace(cell, text=start) for cell in super().cells(material) for start in self.starts
        ]

    def measure(self, material: HeldOut, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell, one for each reported step."""
        engine, start = material.engine, cell.text or ""
        contexts, following = self.contexts(material, cell), self.following(material)
        before = start_memories(
            engine.runtime, contexts, start, ratio=cell.known_ratio, seed=self.seed
        )
        refined, trail = self._refined(engine, contexts, before)
        raw = {
            key: mean_figure(token_losses(engine.runtime, texts, following), seed=self.seed)
            for key, texts in (
                ("full_loss", contexts),
                ("bare_loss", [ids[:0] for ids in contexts]),
            )
        }
        ends = {
            place: raw | self._loss(engine, following, trail[place]) for place in (0, self.steps)
        }
        ends[self.steps]["seconds"] = mean_figure([r.seconds for r in refined], seed=self.seed)
        made: list[Row] = []
        text: Row = {"per_context": {}}
        shown: list[ContextMemory] = []
        for step in self.places:
            if not _same_slots(shown, trail[step]):  # else spans are done: the text is the same
                shown = trail[step]
                written = write_back(engine.runtime, shown[: self.greedy])
                if written:
                    text = text_figures(engine, contexts, written, seed=self.seed)
            row = {
                "kind": f"{cell.length} tokens, {start}",
                "series": f"{cell.length} tokens, {cell.times}, {start}",
                "slots": before[0].positions,
                "step": step,
                **self._accuracy(refined, step),
            }
            made.append(joined(joined(row, text), ends.get(step, {"per_context": {}})))
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
        """Figures of all spans after so many steps."""
        shares = [share_after(r.history, step) for r in refined]
        best = [max(r.history[: step + 1]) for r in refined]
        return {
            "samples": len(refined),
            "accuracy": mean_figure(shares, seed=self.seed),
            "best_accuracy": mean_figure(best, seed=self.seed),
            "done": float(np.mean([r.reached and r.steps <= step for r in refined])),
            "per_context": {"accuracy": shares},
        }

    def _loss(
        self, engine: Engine, following: Sequence[TokenIds], memories: Sequence[ContextMemory]
    ) -> Row:
        """The next-token loss behind finished slots."""
        losses = slot_losses(engine.runtime, memories, following)
        figure = mean_figure(losses, seed=self.seed)
        return {"loss": figure, "per_context": {"loss": losses.tolist()}}


def _same_slots(before: Sequence[ContextMemory], now: Sequence[ContextMemory]) -> bool:
    """Whether the slots are the very ones of before."""
    return len(before) == len(now) and all(old is new for old, new in zip(before, now, strict=True))


def share_after(history: Sequence[float], step: int) -> float:
    """Fidelity after so many steps; a span that stopped before keeps its last one.

    Args:
        history: Fidelity before the first step and after each one.
        step: Steps taken.
    """
    return history[min(step, len(history) - 1)]


def start_memories(
    runtime: TorchRuntime, contexts: Sequence[TokenIds], start: str, *, ratio: float, seed: int
) -> list[ContextMemory]:
    """Slots to refine from; every context is one span.

    Args:
        runtime: Holds the model.
        contexts: Token ids of each span, at most the adapter's span length.
        start: One of `STARTS`.
        ratio: Context tokens per slot.
        seed: Seed of the noise.
    """
    if start == "encoder":
        return encode_contexts(runtime, contexts, ratio=ratio)
    model = runtime.model
    if isinstance(model, KeyValueModel):
        raise InputError(
            "Keys and values start from what the encoder makes.",
            got=f"the start {start}",
            expected="encoder",
            fix="Use --starts encoder, or an adapter of model.memory: embeddings.",
        )
    counts = [slot_count(len(ids), ratio) for ids in contexts]
    if start == "chunk-means":
        made = [mean_slots(model, ids, k) for ids, k in zip(contexts, counts, strict=True)]
    else:
        made = [noise_slots(model, k, seed=(seed, i)) for i, k in enumerate(counts)]
    return [
        ContextMemory.of_slots(slots_KD, [(len(ids), len(slots_KD))])
        for ids, slots_KD in zip(contexts, made, strict=True)
    ]


@torch.inference_mode()
def mean_slots(model: IcaeModel, ids: TokenIds, slots: int) -> FloatArray:
    """The mean input embedding of each chunk of a span, all tokens alike.

    Args:
        model: Holds the embeddings.
        ids: Token ids of the span, int64 [L].
        slots: Slots K.

    Returns:
        Slots [K, D], float32.
    """
    tokens_LD = embed(model.decoder, torch.from_numpy(ids).to(model.device))
    chunk_L = torch.from_numpy(chunk_of_tokens(len(ids), slots)).to(model.device)
    means_KD: FloatArray = chunk_means(tokens_LD[None], chunk_L[None], slots)[0].cpu().numpy()
    return means_KD


def noise_slots(model: IcaeModel, slots: int, *, seed: tuple[int, ...]) -> FloatArray:
    """Normal noise of the RMS of the input embeddings.

    Args:
        model: Holds the embeddings.
        slots: Slots K.
        seed: Seed of the noise; the slots of a smaller K are the first ones of a larger.

    Returns:
        Slots [K, D], float32.
    """
    width = model.decoder.get_input_embeddings().weight.shape[1]
    noise_KD = np.random.default_rng(seed).standard_normal((slots, width), dtype=np.float32)
    return noise_KD * np.float32(model.embedding_rms)
