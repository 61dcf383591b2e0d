"""Study: a memory learns what it will be asked from its own document.

The start is the encoder's memory; lessons (`lessons.py`) are what the decoder answers from a finer
memory of the text, span groups at a time where that is long. (An adapter's decoder is trained to
read memory: from the text itself it answers worse than from 4x.) Gradient steps on the slots bring
what it answers from the whole memory to that:

    mean over lessons of KL(finer memory || memory) + ae_weight * AE of one span

and end when lessons that are held out no longer gain.

Source: Eyuboglu et al. 2025 (Cartridges, arXiv:2506.06266).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from icae.compression.compressor import Compressor, readable, with_spans
from icae.compression.lessons import Lesson, LessonWriter
from icae.compression.refinement import Moving
from icae.config.parsing import check_ranges
from icae.config.types import FloatArray, TokenIds
from icae.decode.batching import span_batches
from icae.decode.prefix import Prefix
from icae.decode.torch_forms import Asked, Reading, TorchForm
from icae.errors import InputError
from icae.memory import Memory, Span
from icae.model.decoder import in_one_product
from icae.model.losses import score_task
from icae.model.objectives import autoencoding

HELD_OUT = 4
"""One lesson of so many is held out."""

OnStudy = Callable[[int, int, float], None]
"""Called with (steps taken, most steps, KL of the held-out lessons at last, nats per token)."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """How a memory studies.

    Attributes:
        steps: Most optimiser steps.
        batch: Lessons of a step.
        learning_rate: Adam learning rate as in `RefineConfig`; None for an eighth of what suits
            the form there.
        ae_weight: Weight of writing back, of one span a step.
        every: Steps between two looks at the held-out lessons.
        patience: Looks without a gain after which it ends.
        length: Most tokens of an answer.
        teacher_ratio: Context tokens per slot of the finer memory.
        seed: Decides the order of lessons and what is asked.

    Raises:
        ConfigError: If a value is out of range.
    """

    steps: int = 60
    batch: int = 8
    learning_rate: float | None = None
    ae_weight: float = 0.5
    every: int = 5
    patience: int = 3
    length: int = 32
    teacher_ratio: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            "study",
            self,
            at_least_one=("steps", "batch", "every", "patience", "length"),
            at_least_zero=("ae_weight",),
            positive=("learning_rate", "teacher_ratio"),
        )


class Study(Moving):
    """A memory at work: its numbers, lessons, optimiser, and the best so far.

    Args:
        form: Reads the memory.
        spans: All of its spans, of slots.
        ids: Token ids of each.
        lessons: Everything that can be learned or held out.
        config: How.

    Attributes:
        history: KL of the held-out lessons at each look, the first before any step.
    """

    def __init__(
        self,
        form: TorchForm,
        spans: Sequence[Span],
        ids: Sequence[TokenIds],
        lessons: Sequence[Lesson],
        config: StudyConfig,
    ) -> None:
        numbers = np.concatenate([readable(span).numbers for span in spans])
        rate = form.learning_rate / 8 if config.learning_rate is None else config.learning_rate
        super().__init__(form, numbers, rate, (0.9, 0.95))
        self.form, self.config, self.lessons = form, config, lessons
        self.spans = [(span.tokens, span.positions) for span in spans]
        self.readings = [Reading(spans=self.spans, task=lesson.task) for lesson in lessons]
        self.written = [
            Reading(spans=[span], task=autoencoding(own))
            for span, own in zip(self.spans, ids, strict=True)
        ]
        self.best = torch.zeros_like(self.start)
        order = np.random.default_rng(config.seed).permutation(len(lessons)).tolist()
        self.held = order[::HELD_OUT]
        self.learned = [i for place, i in enumerate(order) if place % HELD_OUT] or order
        self.history: list[float] = []

    @property
    def over(self) -> bool:
        """Whether nothing is left to gain."""
        best = int(np.argmin(self.history)) if self.history else 0
        stale = len(self.history) - 1 - best >= self.config.patience
        return self.steps >= self.config.steps or stale

    def look(self) -> float:
        """KL of the held-out lessons; the memory is kept if it is the lowest."""
        held, batch = self.held, self.config.batch
        with torch.no_grad():
            parts = [held[at : at + batch] for at in range(0, len(held), batch)]
            losses = [loss for part in parts for loss in self._losses(part, ())]
        self.history.append(float(torch.stack(losses).mean()))
        if self.history[-1] <= min(self.history):
            self.best = self.moved.detach().clone()
        return self.history[-1]

    def learn(self) -> None:
        """One step on the next lessons, and on writing one span back."""
        config = self.config
        at = self.steps * config.batch + np.arange(min(config.batch, len(self.learned)))
        lessons = [self.learned[i % len(self.learned)] for i in at.tolist()]
        span = [self.steps % len(self.spans)] if config.ae_weight else []
        with torch.enable_grad(), self.form.model.gradients_to_inputs():
            losses = self._losses(lessons, span)
            taught = torch.stack(losses[: len(lessons)]).mean()
            total = taught + config.ae_weight * sum(losses[len(lessons) :], torch.zeros(()))
            (gradient,) = torch.autograd.grad(total, [self.moved])
        self.step(gradient, max(0.1, 1.0 - self.steps / config.steps))

    def _losses(self, lessons: Sequence[int], written: Sequence[int]) -> list[Tensor]:
        """KL of each lesson, then the AE loss of each span that is written back."""
        numbers = self.start + self.scale * self.moved
        asked: list[Asked] = [(numbers, self.readings[i]) for i in lessons]
        for i in written:
            first = sum(slots for _, slots in self.spans[:i])
            asked.append((numbers[first : first + self.spans[i][1]], self.written[i]))
        logits = in_one_product(self.form.model.decoder, self.form.task_states(asked))
        taught, back = logits[: len(lessons)], logits[len(lessons) :]
        losses = [self.lessons[i].loss(own) for i, own in zip(lessons, taught, strict=True)]
        scores = map(score_task, back, [self.written[i].task for i in written])
        return losses + [score.loss_sum / score.labels for score in scores]

    def numbers(self) -> list[FloatArray]:
        """What the slots of each span are made of in the best memory, float32."""
        best = (self.start + self.scale * self.best).cpu()
        ends = np.cumsum([slots for _, slots in self.spans])
        return np.split(best.numpy(), ends[:-1])


def study_memory(
    compressor: Compressor,
    stop_ids: Sequence[int],
    memory: Memory,
    config: StudyConfig,
    questions: Sequence[str],
    on_step: OnStudy,
) -> tuple[Memory, tuple[float, ...]]:
    """Let a memory study its text, answers ended by some tokens; see `icae.engine.Engine.study`."""
    text, spans = compressor.tokenize(_studied_text(memory)), memory.spans
    ids = [text.ids[span.token_start : span.token_end] for span in spans]
    begin = time.perf_counter()
    writer = LessonWriter(
        runtime=compressor.runtime,
        tokenizer=compressor.tokenizer,
        stop_ids=stop_ids,
        length=config.length,
    )
    finer = compressor.encode(compressor.cut(text), ratio=config.teacher_ratio, verify=False)
    # Lessons are about stretches of the text, groups of its spans that leave room in the window.
    window = compressor.runtime.context_window // 2
    lessons: list[Lesson] = []
    for part in span_batches([span.tokens for span in finer], bound=window):
        taught = Prefix(
            parts=tuple(readable(span) for span in finer[part]),
            spans=tuple((span.tokens, span.positions) for span in finer[part]),
            objective="ft",
        )
        stretch = text.ids[finer[part][0].token_start : finer[part][-1].token_end]
        lessons += writer.write(stretch, taught, questions, config.seed)
    study = Study(compressor.runtime.form, spans, ids, lessons, config)
    study.look()
    while not study.over:
        study.learn()
        if study.steps % config.every == 0 or study.steps == config.steps:
            study.look()
        on_step(study.steps, config.steps, study.history[-1])
    seconds = (time.perf_counter() - begin) / len(spans)
    made = [
        replace(
            span,
            payload=readable(span).changed(numbers),
            refine_steps=span.refine_steps + study.steps,
            refine_seconds=span.refine_seconds + seconds,
        )
        for span, numbers in zip(spans, study.numbers(), strict=True)
    ]
    measured = with_spans(memory, dict(enumerate(compressor.measured(made, ids))))
    return compressor.with_recall(measured, {0: text.ids}), tuple(study.history)


def _studied_text(memory: Memory) -> str:
    """The text of a memory that can study."""
    kinds = {span.kind for span in memory.spans}
    if len(memory.documents) > 1 or "tokens" in kinds:
        raise InputError(
            "A memory studies one document, of which every span is slots.",
            got=f"{len(memory.documents)} documents; spans of {', '.join(sorted(kinds))}",
            expected="one document without verbatim spans",
            fix="Compress the document by itself, with --ratio.",
        )
    return memory.documents[0].require_source()
