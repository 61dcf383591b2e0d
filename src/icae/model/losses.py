"""The losses: of one task, and the lambda-loss of a training step.

``L = (1 - s) * (lambda * L_AE + (1 - lambda) * L_LM + r * L_recall) + s * L_FT``, each L a mean
over the whole step; lambda is the recipe's `ae_weight`, r its `recall_weight`, s its share of
instructions.

Source: Ge et al. 2024, section 2.2.

Shape legend: T scored targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from icae.config import ObjectiveConfig
from icae.config.types import OBJECTIVES, Objective, TokenIds
from icae.model.objectives import DecoderTask, Sample


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskScore:
    """How the decoder did on one task under teacher forcing.

    Attributes:
        objective: Whose loss it counts for.
        loss_sum: Sum of the token losses (nats), a scalar tensor with gradient.
        labels: Number of scored tokens T.
        correct_T: Whether the most likely token was the target, [T] bool.
        log_probs_T: Log-probability of each target (nats), [T] float32, detached.
    """

    objective: Objective
    loss_sum: Tensor
    labels: int
    correct_T: Tensor
    log_probs_T: Tensor


def score_task(logits_TV: Tensor, task: DecoderTask) -> TaskScore:
    """Cross-entropy and accuracy of one task from the logits of its scored targets."""
    target_T = torch.from_numpy(task.scored_ids).to(logits_TV.device)
    losses_T = nn.functional.cross_entropy(logits_TV, target_T, reduction="none")
    return TaskScore(
        objective=task.objective,
        loss_sum=losses_T.sum(),
        labels=task.labels,
        correct_T=logits_TV.detach().argmax(dim=-1) == target_T,
        log_probs_T=-losses_T.detach(),
    )


class Written(NamedTuple):
    """How texts came out under teacher forcing.

    Attributes:
        correct_T: Whether the most likely token was the target.
        log_probs_T: Log-probability of each target, nats, float32.
        lead_T: By how many logits each target leads the best other token.
    """

    correct_T: Tensor
    log_probs_T: Tensor
    lead_T: Tensor


@torch.no_grad()
def written_and_gradient(logits_TV: Tensor, scored_ids: TokenIds) -> tuple[Written, Tensor]:
    """How the targets came out, and the gradient of -log_probs_T at the float32 logits, [T, V].

    The logits are overwritten with it: memory of their size is dear.
    """
    target_T1 = torch.from_numpy(scored_ids).to(logits_TV.device)[:, None]
    own_T1 = logits_TV.gather(1, target_T1)
    other_T, at_T = logits_TV.scatter_(1, target_T1, -torch.inf).max(1)
    lead_T = own_T1[:, 0] - other_T
    probs_TV = torch.softmax(logits_TV.scatter_(1, target_T1, own_T1), 1, out=logits_TV)
    written = Written(
        correct_T=(lead_T > 0) | ((lead_T == 0) & (target_T1[:, 0] < at_T)),
        log_probs_T=torch.minimum(lead_T, torch.zeros_like(lead_T)) + probs_TV.amax(1).log(),
        lead_T=lead_T,
    )
    return written, probs_TV.scatter_add_(1, target_T1, -torch.ones_like(own_T1))


def token_kl(teacher_TV: Tensor, logits_TV: Tensor) -> Tensor:
    """KL(teacher || student) of every token, [T] nats, of log-probabilities and float32 logits."""
    log_probs_TV = nn.functional.log_softmax(logits_TV, dim=-1)
    kl_TV = nn.functional.kl_div(
        log_probs_TV, teacher_TV.to(log_probs_TV), reduction="none", log_target=True
    )
    return kl_TV.sum(dim=-1)


def objective_weights(config: ObjectiveConfig) -> dict[Objective, float]:
    """Weight of each objective's mean in the loss of a step."""
    text = 1.0 - config.ft_share
    return {
        "ae": text * config.ae_weight,
        "lm": text * (1.0 - config.ae_weight),
        "recall": text * config.recall_weight,
        "ft": config.ft_share,
    }


@dataclass(frozen=True, kw_only=True)
class StepLoss:
    """The loss of one training step, whose micro-batches are scored one by one.

    Attributes:
        weights: Weight of each objective's mean.
        labels: Scored tokens of each objective in the whole step.
        answers: Instructions in the whole step, if each counts alike; None: each token does.
    """

    weights: Mapping[Objective, float]
    labels: Mapping[Objective, int]
    answers: int | None = None

    @classmethod
    def of(cls, config: ObjectiveConfig, samples: Sequence[Sample]) -> StepLoss:
        """The loss of a step with these samples, over all processes."""
        tasks = [task for sample in samples for task in sample.tasks]
        labels = dict.fromkeys(OBJECTIVES, 0)
        for task in tasks:
            labels[task.objective] += task.labels
        answers = sum(task.objective == "ft" for task in tasks)
        return cls(
            weights=objective_weights(config),
            labels=labels,
            answers=answers if config.ft_mean == "answers" else None,
        )

    def part(self, scores: Sequence[TaskScore]) -> Tensor:
        """A micro-batch's part of the loss; the parts add up to the weighted means."""
        parts = [score.loss_sum * self._weight(score) for score in scores]
        return sum(parts[1:], start=parts[0])

    def _weight(self, score: TaskScore) -> float:
        """Weight of each token of a task."""
        if score.objective == "ft" and self.answers is not None:
            share = 1 / (score.labels * self.answers)
        else:
            share = 1 / self.labels[score.objective]
        return self.weights[score.objective] * share
