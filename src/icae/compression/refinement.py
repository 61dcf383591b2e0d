"""Refinement: gradient steps on the slots themselves, against the frozen decoder.

What slots are made of, how far a step goes and how they are read is the form's
(`icae.decode.torch_forms`). Writing the text back (AE) alone would ruin slots that are input
embeddings for everything else, so the loss is

    AE + kl_weight * KL(decoder on the full context || decoder on the slots)

over texts that the decoder wrote itself after reading the context (`teachers.py`). A span is
done when enough of its tokens lead the runner-up by a margin; one that will not get there is
told by the pace of its first steps, which are of AE alone.

Source: Ge et al. 2024, section 2.2; measured in docs/training-log.md.

Shapes: N spans at work, T scored targets, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icae.config.parsing import check, check_ranges
from icae.config.types import FloatArray, TokenIds
from icae.decode.torch_forms import TorchForm
from icae.memory import TokenFidelity
from icae.memory.payload import ReadablePayload
from icae.model.losses import TaskScore, score_task, token_kl
from icae.model.objectives import DecoderTask, autoencoding

BETAS = (0.7, 0.9)
"""Decay rates of Adam's moments; (0.9, 0.95) takes half as many steps again [measured]."""
FIRM_LOSS = 0.2
"""AE loss (nats per token) at which about every token leads by a margin of 1 [measured]."""
LOSS_OF_MISSES = 4.0
"""By how much the AE loss may be higher for each share of tokens that may be missed."""
PACE = 10
"""Steps over which the pace of the loss is taken."""

OnStep = Callable[[int, int], None]
"""Called with (optimiser steps taken or saved, most steps of all spans)."""

OnSlots = Callable[[int, int, ReadablePayload], None]
"""Called with (index of the span, steps taken, the best slots so far)."""


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """How slots are refined.

    Attributes:
        steps: Most optimiser steps for a span.
        target: Fidelity at which a span is done (0..1).
        margin: Logits by which a token must lead the runner-up to count for that.
        learning_rate: Adam learning rate as a share of the RMS of what slots are made of (input
            embeddings, or the keys or values of a layer), or None for what suits the form.
        kl_weight: Weight of the KL term, or None for what suits the form; 0 refines for
            writing back alone.
        probe: First steps of a span, of AE alone; from then on it is given up if the pace of
            its loss would not reach the target in time.
        slack: Times `steps` that count as in time; infinite gives no span up for its pace.
        patience: Steps without a better fidelity after which a span is given up.
        tokens_per_batch: Decoder places in one forward pass; bounds memory.

    Raises:
        ConfigError: If a value is out of range.
    """

    steps: int = 60
    target: float = 0.98
    margin: float = 1.0
    learning_rate: float | None = None
    kl_weight: float | None = None
    probe: int = 4
    slack: float = 1.0
    patience: int = 30
    tokens_per_batch: int = 768

    def __post_init__(self) -> None:
        good = 0 < self.target <= 1
        check(good, "refine.target is out of range.", self.target, "above 0, at most 1")
        check_ranges(
            "refine",
            self,
            at_least_one=("steps", "patience", "tokens_per_batch"),
            at_least_zero=("margin", "probe", "kl_weight"),
            positive=("slack", "learning_rate"),
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
    """A span, int64 [L], and the slots to start from."""

    token_ids: TokenIds
    payload: ReadablePayload


Teach = Callable[[Sequence[TokenIds]], Sequence[Teacher]]
"""Writes what else the slots of each of some contexts must be good for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Refined:
    """What refinement made of a span: the best slots it met.

    Attributes:
        payload: The slots.
        token_fidelity: Of each token of the span, with these slots.
        steps: Optimiser steps taken.
        seconds: This span's share of the wall time, s.
        history: Fidelity before the first step and after each one.
        reached: Whether the target was reached, by the margin.
    """

    payload: ReadablePayload
    token_fidelity: TokenFidelity
    steps: int
    seconds: float
    history: tuple[float, ...]
    reached: bool


class Moving:
    """Numbers that slots are made of, and what moves them.

    Args:
        form: Gives their scale.
        numbers: Where they start, float32, decoder positions first.
        rate: By which share of their scale a step moves them at first.
        betas: Decay rates of Adam's moments.

    Attributes:
        moved: How far they are from the start, in units of their scale.
        steps: Steps taken.
    """

    def __init__(
        self, form: TorchForm, numbers: FloatArray, rate: float, betas: tuple[float, float]
    ) -> None:
        self.start = torch.from_numpy(numbers).to(form.model.device)
        self.scale = form.scale(self.start)
        self.moved = nn.Parameter(torch.zeros_like(self.start))
        self.rate, self.steps = rate, 0
        self.optimizer = torch.optim.Adam([self.moved], lr=rate, betas=betas)

    def step(self, gradient: Tensor, share: float) -> None:
        """One Adam step, at a share of the rate."""
        self.moved.grad = gradient
        self.optimizer.param_groups[0]["lr"] = self.rate * share
        self.optimizer.step()
        self.moved.grad = None
        self.steps += 1


class _Work(Moving):
    """One span at work: its slots, its own Adam, the best slots so far."""

    def __init__(
        self, index: int, task: RefineTask, form: TorchForm, config: RefineConfig, kl_weight: float
    ) -> None:
        rate = form.learning_rate if config.learning_rate is None else config.learning_rate
        super().__init__(form, task.payload.numbers, rate, BETAS)
        self.index, self.config, self.kl_weight = index, config, kl_weight
        self.task, self.token_ids = autoencoding(task.token_ids), task.token_ids
        self.payload = self.best_payload = task.payload
        self.span = (len(task.token_ids), task.payload.positions)
        self.teacher: Teacher | None = None
        self.best: tuple[float, float, float] | None = None
        self.seconds, self.best_step = 0.0, 0
        self.history: list[float] = []
        self.losses: list[float] = []
        self.reached = False

    def numbers(self) -> Tensor:
        """What the slots are made of now, as it would be stored; gradients pass the rounding."""
        exact = self.start + self.scale * self.moved
        self.payload = self.payload.changed(exact.detach().cpu().numpy())
        stored = torch.from_numpy(self.payload.numbers).to(exact.device)
        return exact + (stored - exact).detach()

    @property
    def lacks_teacher(self) -> bool:
        """Whether its steps are to be of AE and KL from now on."""
        passed = len(self.history) > self.config.probe
        return passed and self.kl_weight > 0 and self.teacher is None

    @property
    def tasks(self) -> tuple[DecoderTask, ...]:
        """Everything the decoder does behind these slots: AE first, then the teacher's."""
        return (self.task,) if self.teacher is None else (self.task, self.teacher.task)

    @property
    def places(self) -> int:
        """Decoder places of one step; as many again are kept for a teacher to come."""
        places = sum(self.span[1] + len(task.target_ids) for task in self.tasks)
        to_come = self.teacher is None and self.kl_weight > 0
        return places * (2 if to_come else 1)

    def note(self, score: TaskScore, logits_TV: Tensor) -> bool:
        """Take down how faithful the slots are now; returns whether they are good enough.

        The best slots reproduce most tokens, then most of them by the margin; slots that are
        good enough are the best.
        """
        share = float(score.correct_T.float().mean())
        lead_T = target_leads(logits_TV.detach(), self.task)
        firm = float((score.correct_T & (lead_T >= self.config.margin)).float().mean())
        loss = -float(score.log_probs_T.mean())
        self.history.append(share)
        self.losses.append(loss)
        self.reached = firm >= self.config.target
        now = (share, firm, -loss)
        if self.best is None or self.reached or now > self.best:
            if self.best is None or now[:2] > self.best[:2]:
                self.best_step = self.steps
            self.best = now
            self.best_payload = self.payload
            self.best_fidelity = TokenFidelity.of_probabilities(
                score.correct_T.cpu().numpy(), score.log_probs_T.exp().float().cpu().numpy()
            )
        return self.reached

    def is_over(self) -> bool:
        """Whether no step is left to take: none allowed, or no hope of the target."""
        config = self.config
        if self.steps >= config.steps or self.steps - self.best_step >= config.patience:
            return True
        if self.steps < max(config.probe, 1):
            return False
        needed = self.steps + steps_left(self.losses, config.target)
        return needed > config.slack * config.steps

    def loss(self, score: TaskScore, taught: Sequence[Tensor]) -> Tensor:
        """AE token mean + kl_weight times the KL per token."""
        total = score.loss_sum / score.labels
        for logits_TV in taught:
            assert self.teacher is not None
            total = total + token_kl(self.teacher.log_probs_TV, logits_TV).mean() * self.kl_weight
        return total

    @property
    def share(self) -> float:
        """Share of the rate: falls linearly to a tenth over the last half of the steps."""
        return max(0.1, min(1.0, 2.0 * (1.0 - self.steps / self.config.steps)))

    def result(self) -> Refined:
        return Refined(
            payload=self.best_payload,
            token_fidelity=self.best_fidelity,
            steps=self.steps,
            seconds=self.seconds,
            history=tuple(self.history),
            reached=self.reached,
        )


def steps_left(losses: Sequence[float], target: float) -> float:
    """How many more steps a span needs if its loss falls on as in its last steps.

    Args:
        losses: AE loss before the first step and after each one, nats per token.
        target: Fidelity wanted (0..1).
    """
    enough = FIRM_LOSS + LOSS_OF_MISSES * (1.0 - target)
    now, before = losses[-1], losses[max(0, len(losses) - 1 - PACE)]
    if now <= enough:
        return 0.0
    steps = min(PACE, len(losses) - 1)
    pace = math.log(before / now) / steps if steps and now < before else 0.0
    return math.log(now / enough) / pace if pace > 0 else math.inf


def target_leads(logits_TV: Tensor, task: DecoderTask) -> Tensor:
    """By how much each target of a task leads the best other token, [T] logits."""
    target_T1 = torch.from_numpy(task.scored_ids).to(logits_TV.device)[:, None]
    own_T = logits_TV.gather(1, target_T1)[:, 0]
    best_T, second_T = logits_TV.topk(2, dim=1).values.unbind(1)
    return own_T - torch.where(own_T == best_T, second_T, best_T)


def refine(
    form: TorchForm,
    tasks: Sequence[RefineTask],
    config: RefineConfig,
    *,
    teach: Teach | None = None,
    on_step: OnStep = lambda done, total: None,
    on_slots: OnSlots = lambda index, steps, payload: None,
) -> Iterator[tuple[int, Refined]]:
    """Refine the slots of spans; each leaves as soon as it reaches the target.

    As many are worked on side by side as `tokens_per_batch` allows.

    Args:
        form: Reads the slots with the frozen decoder; no weight of the model changes.
        tasks: The spans.
        config: When to stop and what to weigh.
        teach: Writes the teachers of spans that are worth it; without it there is no KL term.
        on_step: Called after each step of the spans at work.
        on_slots: Called for each span before its first step and after each one.

    Yields:
        (index into `tasks`, the best slots met), in the order in which spans finish.
    """
    kl_weight = form.kl_weight if config.kl_weight is None else config.kl_weight
    kl_weight = 0.0 if teach is None else kl_weight
    # Spans of one length stand side by side: a forward pass pads none of them.
    waiting = deque(sorted(enumerate(tasks), key=lambda item: -len(item[1].token_ids)))
    active: list[_Work] = []
    settled, total = 0, len(tasks) * config.steps
    while waiting or active:
        if sum(work.places for work in active) <= config.tokens_per_batch / 2:
            while waiting and sum(work.places for work in active) < config.tokens_per_batch:
                active.append(_Work(*waiting.popleft(), form, config, kl_weight))
        begin = time.perf_counter()
        lacking = [work for work in active if work.lacks_teacher]
        if teach is not None and lacking:
            for work, own in zip(lacking, teach([w.token_ids for w in lacking]), strict=True):
                work.teacher = own
        with form.model.gradients_to_inputs():
            done = _step(form, active, on_slots)
        spent = time.perf_counter() - begin
        places = sum(work.places for work in active)
        for work in active:
            work.seconds += spent * work.places / places
        active = [work for work in active if work not in done]
        settled += len(done) * config.steps
        on_step(settled + sum(work.steps for work in active), total)
        yield from ((work.index, work.result()) for work in done)


def _step(form: TorchForm, active: Sequence[_Work], on_slots: OnSlots) -> list[_Work]:
    """One forward pass over all spans at work, and a step for those not done yet."""
    done: list[_Work] = []
    with torch.enable_grad():
        asked = [(work.numbers(), [work.span], work.tasks) for work in active]
        logits = iter(form.task_logits(asked))
        losses, going = [], []
        for work in active:
            written_TV, *taught = [next(logits) for _ in work.tasks]
            score = score_task(written_TV, work.task)
            enough = work.note(score, written_TV)
            on_slots(work.index, work.steps, work.best_payload)
            if enough or work.is_over():
                done.append(work)
                continue
            going.append(work)
            losses.append(work.loss(score, taught))
        if going:
            gradients = torch.autograd.grad(losses, [work.moved for work in going])
            for work, gradient in zip(going, gradients, strict=True):
                work.step(gradient, work.share)
    return done
