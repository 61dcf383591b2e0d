"""The KL divergence from the decoder that reads the full context, against one by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from icae.errors import ConfigError
from icae.model import Sample
from icae.model.objectives import autoencoding, continuation, instruction


def log_probs(decoder: Any, ids: Any, scored: int) -> torch.Tensor:
    """Log-probabilities [scored, V] of the last tokens of a plain row."""
    with torch.no_grad():
        logits = decoder(input_ids=torch.tensor(ids)[None]).logits[0]
    return torch.log_softmax(logits[-scored - 1 : -1], dim=-1)


@pytest.fixture
def sample(random_ids: Any) -> Sample:
    """A context of two spans with a continuation, an instruction and its own text."""
    context, prompt = random_ids(24), random_ids(5, 1)
    answer = instruction(
        prompt, random_ids(3, 2), full_prompt_ids=np.concatenate([context, prompt])
    )
    tasks = (autoencoding(context), continuation(random_ids(6, 3)), answer)
    return Sample(context_ids=context, ratio=4.0, tasks=tasks)


@pytest.mark.parametrize(("objective", "scored"), [("lm", 6), ("ft", 3)])
def test_the_minimised_loss_is_the_mix_of_both(
    model: Any, sample: Sample, objective: str, scored: int
) -> None:
    task = next(t for t in sample.tasks if t.objective == objective)
    row = np.concatenate([sample.context_ids, task.target_ids])
    teacher = log_probs(model.decoder, row, scored)
    alone = Sample(context_ids=sample.context_ids, ratio=4.0, tasks=(task,))
    with torch.no_grad():
        memory = torch.cat(model.encode_spans([row[:16], row[16:24]], [4, 2]))
        student = torch.log_softmax(
            model.label_logits([memory], [[(16, 4), (8, 2)]], [task])[0], dim=-1
        )
        (score,) = model([alone], kl_shares={objective: 0.25})
    divergence = (teacher.exp() * (teacher - student)).sum()
    expected = 0.75 * score.loss_sum + 0.25 * divergence
    assert float(score.minimised) == pytest.approx(float(expected), abs=1e-3)
    assert float(divergence) > 0.1


def test_only_the_objectives_with_a_share_have_a_teacher(model: Any, sample: Sample) -> None:
    with torch.no_grad():
        plain = model([sample])
        taught = model([sample], kl_shares={"ft": 1.0})
    assert [float(s.minimised) for s in plain] == [float(s.loss_sum) for s in plain]
    same = [torch.equal(s.minimised, s.loss_sum) for s in taught]
    assert same == [True, True, False]


def test_an_instruction_without_its_full_prompt_cannot_be_taught(
    model: Any, random_ids: Any
) -> None:
    context = random_ids(16)
    task = instruction(random_ids(5, 1), random_ids(3, 2))
    with pytest.raises(ConfigError, match="no reading of the full context"):
        model([Sample(context_ids=context, ratio=4.0, tasks=(task,))], kl_shares={"ft": 1.0})


def test_the_teacher_gets_no_gradient(model: Any, sample: Sample) -> None:
    model.train()
    scores = model([sample], kl_shares={"lm": 0.5, "ft": 0.5})
    sum(s.minimised for s in scores).backward()
    assert all(p.grad is None for p in model.decoder.parameters())
    assert all(p.grad is not None for p in model.trainable().values())
