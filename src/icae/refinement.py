"""Refinement: gradient steps on the slots themselves, against the frozen decoder.

An encoder writes slots in one pass; what it misses can be bought with compress-time
compute, because a slot is only an input vector and the decoder is differentiable.
Writing the text back (AE) alone would ruin the slots for everything else, so the loss is

    AE + kl_weight * KL(decoder on the full context || decoder on the slots)

over texts that the decoder wrote itself after reading the context (`teachers.py`): what
it continues with, and what it answers to general questions. Nothing but the context is
needed. Source: measured in docs/training-log.md; design of the objective after
Ge et al. 2024, section 2.2 (autoencoding and continuation belong together).

Shapes: N spans at work, K slots, D hidden, T scored targets, V vocabulary.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from icae.errors import ConfigError
from icae.memory import TokenFidelity
from icae.model import IcaeModel, score_task, token_kl
from icae.objectives import DecoderTask, autoencoding
from icae.types import FloatArray, TokenIds


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """How slots are refined.

    Attributes:
        steps: Most optimiser steps for a span.
        target: Fidelity at which a span is done (0..1).
        learning_rate: Adam learning rate as a share of the RMS of the input embeddings.
        kl_weight: Weight of the KL term; 0 refines for writing back alone.
        patience: Steps without a better fidelity after which a span is given up.
        tokens_per_batch: Decoder places in one forward pass; bounds memory.

    Raises:
        ConfigError: If a value is out of range.
    """

    steps: int = 100
    target: float = 0.98
    learning_rate: float = 0.3
    kl_weight: float = 1.0
    patience: int = 30
    tokens_per_batch: int = 768

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("steps", self.steps >= 1, ">= 1"),
            ("target", 0 < self.target <= 1, "above 0, at most 1"),
            ("learning_rate", self.learning_rate > 0, "> 0"),
            ("kl_weight", self.kl_weight >= 0, ">= 0"),
            ("patience", self.patience >= 1, ">= 1"),
            ("tokens_per_batch", self.tokens_per_batch >= 1, ">= 1"),
        ):
            if not good:
                raise ConfigError(
                    f"refine.{name} is out of range.",
                    got=repr(getattr(self, name)),
                    expected=expected,
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A text the decoder wrote after the full context, and how sure it was of each token.

    Attributes:
        task: What the decoder must do behind the slots (LM or FT); scored on T targets.
        log_probs_TV: Its log-probabilities with the full context, float16 [T, V].
    """

    task: DecoderTask
    log_probs_TV: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class RefineTask:
    """A span whose slots are to be refined.

    Attributes:
        token_ids: The span's token ids, int64 [L].
        slots_KD: The slots to start from, float32 [K, D].
        teachers: What else the slots must be good for; read only if `kl_weight` > 0.
    """

    token_ids: TokenIds
    slots_KD: FloatArray
    teachers: Callable[[], Sequence[Teacher]] = field(default=lambda: ())


@dataclass(frozen=True, kw_only=True, eq=False)
class Refined:
    """What refinement made of a span: the best slots it met.

    Attributes:
        slots_KD: float32 [K, D].
        token_fidelity: Of each token of the span, with these slots.
        steps: Optimiser steps taken.
        seconds: This span's share of the wall time, s.
        history: Fidelity before the first step and after each one.
    """

    slots_KD: FloatArray
    token_fidelity: TokenFidelity
    steps: int
    seconds: float
    history: tuple[float, ...]


class _Work:
    """One span at work: its slots, its own Adam, the best slots so far."""

    def __init__(self, index: int, task: RefineTask, model: IcaeModel, config: RefineConfig):
        self.index = index
        self.task = autoencoding(task.token_ids)
        self.length = len(task.token_ids)
        start = torch.from_numpy(task.slots_KD).to(model.device, torch.float32)
        self.slots_KD = nn.Parameter(start.clone())
        rate = config.learning_rate * model.embedding_rms
        self.optimizer = torch.optim.Adam([self.slots_KD], lr=rate, betas=(0.9, 0.95))
        self.rate = rate
        self.teachers = tuple(task.teachers()) if config.kl_weight > 0 else ()
        self.best: tuple[float, float] | None = None
        self.steps, self.seconds, self.best_step = 0, 0.0, 0
        self.history: list[float] = []

    @property
    def tasks(self) -> tuple[DecoderTask, ...]:
        """Everything the decoder does behind these slots: AE first, then the teachers'."""
        return (self.task, *(teacher.task for teacher in self.teachers))

    @property
    def places(self) -> int:
        """Decoder places of one step."""
        return sum(len(self.slots_KD) + len(task.target_ids) for task in self.tasks)

    def note(self, logits_TV: Tensor) -> float:
        """Take down how faithful the slots are now; returns the fidelity."""
        score = score_task(logits_TV.detach(), self.task)
        share = float(score.correct_T.float().mean())
        self.history.append(share)
        reached = (share, -float(score.loss_sum))
        if self.best is None or reached > self.best:
            if self.best is None or share > self.best[0]:
                self.best_step = self.steps
            self.best = reached
            self.best_slots_KD = self.slots_KD.detach().clone()
            self.best_fidelity = TokenFidelity.of_probabilities(
                score.correct_T.cpu().numpy(), score.log_probs_T.exp().float().cpu().numpy()
            )
        return share

    def is_over(self, config: RefineConfig) -> bool:
        """Whether no step is left to take: none allowed, or no hope of the target.

        There is no hope after `patience` steps without a better fidelity, nor when the
        pace since the start, kept up to the last step, would not reach the target.
        """
        if self.steps >= config.steps or self.steps - self.best_step >= config.patience:
            return True
        if self.steps < config.patience:
            return False
        start, best = self.history[0], max(self.history)
        return start + (best - start) * config.steps / self.steps < config.target

    def loss(self, logits: Sequence[Tensor], kl_weight: float) -> Tensor:
        """AE token mean + kl_weight times the mean over teachers of the KL per token."""
        total = score_task(logits[0], self.task).loss_sum / self.task.labels
        for teacher, logits_TV in zip(self.teachers, logits[1:], strict=True):
            kl = token_kl(teacher.log_probs_TV, logits_TV).mean()
            total = total + kl * (kl_weight / len(self.teachers))
        return total

    def step(self, most: int) -> None:
        """One Adam step; the rate falls linearly to a tenth over the last half."""
        left = max(0.1, min(1.0, 2.0 * (1.0 - self.steps / most)))
        self.optimizer.param_groups[0]["lr"] = self.rate * left
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1

    def result(self) -> Refined:
        return Refined(
            slots_KD=self.best_slots_KD.cpu().numpy(),
            token_fidelity=self.best_fidelity,
            steps=self.steps,
            seconds=self.seconds,
            history=tuple(self.history),
        )


def refine(
    model: IcaeModel, tasks: Sequence[RefineTask], config: RefineConfig
) -> Iterator[tuple[int, Refined]]:
    """Refine the slots of spans; each leaves as soon as it reaches the target.

    Spans are worked on side by side, as many as `tokens_per_batch` allows; when one is
    done the next takes its place, so memory stays bounded for any number of spans.

    Args:
        model: The model whose frozen decoder reads the slots; no weight of it changes.
        tasks: The spans.
        config: When to stop and what to weigh.

    Yields:
        (index into `tasks`, result) in the order in which spans finish. A span that never
        reaches the target gives the best slots met; they are never worse than the first.
    """
    waiting = deque(enumerate(tasks))
    active: list[_Work] = []
    while waiting or active:
        while waiting and (not active or sum(w.places for w in active) < config.tokens_per_batch):
            index, task = waiting.popleft()
            active.append(_Work(index, task, model, config))
        begin = time.perf_counter()
        done = _step(model, active, config)
        spent = time.perf_counter() - begin
        places = sum(work.places for work in active)
        for work in active:
            work.seconds += spent * work.places / places
        for work in done:
            active.remove(work)
            yield work.index, work.result()


def _step(model: IcaeModel, active: Sequence[_Work], config: RefineConfig) -> list[_Work]:
    """One forward pass over all spans at work, and a step for those not done yet."""
    done: list[_Work] = []
    with torch.enable_grad():
        rounded = [work.slots_KD.to(model.dtype) for work in active]
        memories, spans, tasks = [], [], []
        for work, slots_KD in zip(active, rounded, strict=True):
            for task in work.tasks:
                memories.append(slots_KD)
                spans.append([(work.length, len(slots_KD))])
                tasks.append(task)
        logits = iter(model.label_logits(memories, spans, tasks))
        total: Tensor | None = None
        going = []
        for work in active:
            own = [next(logits) for _ in work.tasks]
            if work.note(own[0]) >= config.target or work.is_over(config):
                done.append(work)
                continue
            going.append(work)
            loss = work.loss(own, config.kl_weight)
            total = loss if total is None else total + loss
        if total is not None:
            gradients = torch.autograd.grad(total, [work.slots_KD for work in going])
            for work, gradient in zip(going, gradients, strict=True):
                work.slots_KD.grad = gradient
                work.step(config.steps)
    return done
