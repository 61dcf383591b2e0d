"""Scores of decoder tasks from their logits.

Shape legend: T scored targets, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icae.config.types import Objective
from icae.model.objectives import DecoderTask


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """How the decoder did on one task under teacher forcing.

    Attributes:
        loss_sum: Sum of the token losses (nats), a scalar tensor with gradient.
        minimised: What training minimises in its place: the same, or partly the KL
            divergence from the decoder that reads the full context (sum, nats).
        labels: Number of scored tokens T.
        correct_T: Whether the most likely token was the target, [T] bool.
        log_probs_T: Log-probability of each target (nats), [T] float32, detached.
    """

    objective: Objective
    loss_sum: Tensor
    minimised: Tensor
    labels: int
    correct_T: Tensor
    log_probs_T: Tensor


def score_task(
    logits_TV: Tensor, task: DecoderTask, *, teacher_TV: Tensor | None = None, kl_share: float = 0.0
) -> TaskScore:
    """Cross-entropy and accuracy of one task from the logits of its scored targets.

    Args:
        logits_TV: Logits of the scored targets, float32.
        task: The task.
        teacher_TV: Log-probabilities of the full-context decoder for the same targets.
        kl_share: Share of `minimised` that is the KL divergence from the teacher (0..1).
    """
    target_T = torch.from_numpy(task.target_ids[task.label_mask]).to(logits_TV.device)
    losses_T = nn.functional.cross_entropy(logits_TV, target_T, reduction="none")
    loss_sum = losses_T.sum()
    minimised = loss_sum
    if teacher_TV is not None:
        minimised = (1 - kl_share) * loss_sum + kl_share * token_kl(teacher_TV, logits_TV).sum()
    return TaskScore(
        objective=task.objective,
        loss_sum=loss_sum,
        minimised=minimised,
        labels=task.labels,
        correct_T=logits_TV.detach().argmax(dim=-1) == target_T,
        log_probs_T=-losses_T.detach(),
    )


def token_kl(teacher_TV: Tensor, logits_TV: Tensor) -> Tensor:
    """KL(teacher || student) of every token, [T] nats.

    Args:
        teacher_TV: Log-probabilities of the teacher, any float type.
        logits_TV: Logits of the student, float32.
    """
    log_probs_TV = nn.functional.log_softmax(logits_TV, dim=-1)
    teacher_TV = teacher_TV.to(log_probs_TV)
    return nn.functional.kl_div(log_probs_TV, teacher_TV, reduction="none", log_target=True).sum(
        dim=-1
    )
