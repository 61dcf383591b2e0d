"""The lambda-loss against one computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from icae.config import ObjectiveConfig
from icae.model.losses import StepLoss, TaskScore, score_task, token_kl
from icae.model.objectives import DecoderTask, Sample, autoencoding, continuation, instruction


def sample(*tasks: DecoderTask) -> Sample:
    return Sample(context_ids=np.arange(8), ratio=2.0, tasks=tasks)


def text(length: int) -> Any:
    return autoencoding(np.arange(length))


def after(length: int) -> Any:
    return continuation(np.arange(length))


def asked(length: int) -> Any:
    return instruction(np.arange(3), np.arange(length))


def score(objective: Any, losses: list[float]) -> TaskScore:
    values = torch.tensor(losses)
    return TaskScore(
        objective=objective,
        loss_sum=values.sum(),
        labels=len(losses),
        correct_T=values > 0,
        log_probs_T=-values,
    )


def test_the_instruction_share_splits_the_loss_between_text_and_instructions():
    config = ObjectiveConfig(ae_weight=0.5, ft_share=0.25)
    step = StepLoss.of(config, [sample(text(2), after(1)), sample(asked(2))])
    scores = [score("ae", [4.0, 0.0]), score("lm", [8.0]), score("ft", [12.0, 4.0])]
    assert float(step.part(scores)) == pytest.approx(0.375 * 2 + 0.375 * 8 + 0.25 * 8)


def test_parts_of_micro_batches_add_up_to_the_whole_step():
    config = ObjectiveConfig(ae_weight=0.4)
    step = StepLoss.of(config, [sample(text(1), after(2)), sample(text(3), after(1))])
    scores = [
        score("ae", [1.0]),
        score("lm", [3.0, 5.0]),
        score("ae", [2.0, 2.0, 9.0]),
        score("lm", [1.0]),
    ]
    whole = float(step.part(scores))
    assert sum(float(step.part(scores[i : i + 2])) for i in (0, 2)) == pytest.approx(whole)
    assert whole == pytest.approx(0.4 * 14 / 4 + 0.6 * 9 / 3)


def test_answers_may_count_alike_whatever_their_length():
    samples = [sample(text(2)), sample(asked(1), asked(4))]
    scores = [score("ae", [4.0, 2.0]), score("ft", [1.0]), score("ft", [3.0, 5.0, 7.0, 9.0])]
    for mean, ft_loss in (("answers", (1.0 + 6.0) / 2), ("tokens", 25.0 / 5)):
        config = ObjectiveConfig(ae_weight=1.0, ft_share=0.5, ft_mean=mean)  # type: ignore[arg-type]
        step = StepLoss.of(config, samples)
        assert float(step.part(scores)) == pytest.approx(0.5 * 3.0 + 0.5 * ft_loss)
        parts = [float(step.part([one])) for one in scores]
        assert sum(parts) == pytest.approx(0.5 * 3.0 + 0.5 * ft_loss)


def test_a_task_is_scored_at_its_scored_targets():
    logits_TV = torch.tensor([[0.0, 2.0, 0.0], [5.0, 0.0, 0.0]])
    task = instruction(np.array([1, 1]), np.array([1, 2]))
    got = score_task(logits_TV, task)
    expected = torch.log_softmax(logits_TV, dim=-1)[[0, 1], [1, 2]]
    torch.testing.assert_close(got.log_probs_T, expected)
    assert float(got.loss_sum) == pytest.approx(-float(expected.sum()))
    assert got.correct_T.tolist() == [True, False]


def test_the_divergence_is_that_of_each_token():
    teacher_TV = torch.log_softmax(torch.tensor([[0.0, 1.0], [3.0, 0.0]]), dim=-1)
    logits_TV = torch.tensor([[0.5, 0.5], [3.0, 0.0]])
    student_TV = torch.log_softmax(logits_TV, dim=-1)
    expected = (teacher_TV.exp() * (teacher_TV - student_TV)).sum(dim=-1)
    torch.testing.assert_close(token_kl(teacher_TV, logits_TV), expected)
    assert expected[0] > 0.1
