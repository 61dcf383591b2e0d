"""Refinement: gradient steps on the slots themselves, against the frozen decoder.

What slots are made of and how they are read is the form's (`icae.decode.torch_forms`). Writing
back (AE) alone would ruin slots that are input embeddings for everything else, so the loss is

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

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from icae.config.parsing import check, check_ranges
from icae.config.types import FloatArray, TokenIds
from icae.decode.batching import span_batches
from icae.decode.torch_forms import Reading, TorchForm
from icae.memory import TokenFidelity
from icae.memory.payload import ReadablePayload
from icae.model.around import vocabulary_logits
from icae.model.losses import Written, token_kl, written_and_gradient
from icae.model.objectives import DecoderTask, autoencoding

BETAS = (0.7, 0.9)
"""Decay rates of Adam's moments; (0.9, 0.95) takes half as many steps again [measured]."""
FIRM_LOSS = 0.2
"""AE loss (nats per token) at which about every token leads by a margin of 1 [measured]."""
LOSS_OF_MISSES = 4.0
"""By how much the AE loss may be higher for each share of tokens that may be missed."""
PACE = 10
"""Steps over which the pace of the loss is taken."""
HEAD_ROWS = 128
"""Rows whose logits stand at a time: those of more leave the processor's caches [measured]."""

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
        self.token_ids = task.token_ids
        self.payload = self.best_payload = task.payload
        spans = [(len(task.token_ids), task.payload.positions)]
        self.readings = [Reading(spans=spans, task=autoencoding(task.token_ids))]
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

    def learn_from(self, teacher: Teacher) -> None:
        """Read a teacher's text too, from now on."""
        self.teacher = teacher
        self.readings.append(Reading(spans=self.readings[0].spans, task=teacher.task))

    def taught(self, decoder: PreTrainedModel, state_TD: Tensor) -> Tensor:
        """Gradient [T, D] of the weighed KL per token at last hidden states of its text."""
        assert self.teacher is not None
        given_TD = state_TD.detach().requires_grad_()
        kl_T = token_kl(self.teacher.log_probs_TV, vocabulary_logits(decoder, given_TD))
        (gradient_TD,) = torch.autograd.grad(kl_T.mean() * self.kl_weight, given_TD)
        return gradient_TD

    @property
    def places(self) -> int:
        """Decoder places of one step; as many again are kept for a teacher to come."""
        slots = self.payload.positions
        places = sum(slots + len(reading.task.target_ids) for reading in self.readings)
        to_come = self.teacher is None and self.kl_weight > 0
        return places * (2 if to_come else 1)

    def goes_on(self, written: Written) -> bool:
        """Take down how faithful the slots are now; returns whether there is a step to take.

        The best slots reproduce most tokens, then most of them by the margin; slots that are
        good enough are the best.
        """
        share = float(written.correct_T.float().mean())
        firm_T = written.correct_T & (written.lead_T >= self.config.margin)
        firm = float(firm_T.float().mean())
        loss = -float(written.log_probs_T.mean())
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
                written.correct_T.cpu().numpy(), written.log_probs_T.exp().cpu().numpy()
            )
        return not self.reached and self._has_hope()

    def _has_hope(self) -> bool:
        """Whether a step is allowed and the target within reach."""
        config = self.config
        if self.steps >= config.steps or self.steps - self.best_step >= config.patience:
            return False
        if self.steps < max(config.probe, 1):
            return True
        needed = self.steps + steps_left(self.losses, config.target)
        return needed <= config.slack * config.steps

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
                work.learn_from(own)
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
    """One forward pass over all spans at work, and a step for those not done yet.

    Its gradient begins at the last hidden states: logits are kept for a few rows at a time.
    """
    decoder = form.model.decoder
    with torch.enable_grad():
        numbered = [(work.numbers(), work.readings) for work in active]
        asked = [(numbers, reading) for numbers, own in numbered for reading in own]
        found = iter(form.task_states(asked))
        states = [[next(found) for _ in work.readings] for work in active]
        going: list[_Work] = []
        ends: list[Tensor] = []
        at_ends: list[Tensor] = []
        for part in span_batches([len(work.token_ids) for work in active], bound=HEAD_ROWS):
            written = _noted(decoder, active[part], [own[0] for own in states[part]])
            for work, own, gradient_TD in zip(active[part], states[part], written, strict=True):
                on_slots(work.index, work.steps, work.best_payload)
                if gradient_TD is not None:
                    going.append(work)
                    ends += own
                    at_ends += [gradient_TD, *(work.taught(decoder, state) for state in own[1:])]
        if going:
            gradients = torch.autograd.grad(ends, [work.moved for work in going], at_ends)
            for work, gradient in zip(going, gradients, strict=True):
                work.step(gradient, work.share)
    return [work for work in active if work not in going]


def _noted(
    decoder: PreTrainedModel, works: Sequence[_Work], states: Sequence[Tensor]
) -> list[Tensor | None]:
    """Note how spans came out; the gradient [T, D] of AE at their states, None where done."""
    lengths = [len(own_TD) for own_TD in states]
    given_TD = torch.cat([own_TD.detach() for own_TD in states]).requires_grad_()
    logits_TV = vocabulary_logits(decoder, given_TD)
    targets = np.concatenate([work.token_ids for work in works])
    written, gradient_TV = written_and_gradient(logits_TV.detach(), targets)
    parts = zip(*(torch.split(figure, lengths) for figure in written), strict=True)
    goes = [work.goes_on(Written(*own)) for work, own in zip(works, parts, strict=True)]
    if not any(goes):
        return [None] * len(works)
    each_T1 = torch.cat([given_TD.new_full((n, 1), 1 / n, dtype=torch.float32) for n in lengths])
    (at_states_TD,) = torch.autograd.grad(logits_TV, given_TD, gradient_TV.mul_(each_T1))
    parts_TD = torch.split(at_states_TD, lengths)
    return [own_TD if on else None for on, own_TD in zip(goes, parts_TD, strict=True)]
