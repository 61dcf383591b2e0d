from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from icae.config import ModelConfig
from icae.errors import ConfigError
from icae.model.full_context import FullContextModel
from icae.model.objectives import Sample, autoencoding, instruction

CONFIG = ModelConfig(lora_rank=4, lora_alpha=8.0)


@pytest.fixture
def decoder(build_decoder):
    return build_decoder()


@pytest.fixture
def reader(decoder, as_trained):
    """A reader as if trained."""
    return as_trained(FullContextModel(decoder, CONFIG))


def question(random_ids: Callable[..., Any], *, length: int = 12) -> Sample:
    prompt, answer, context = random_ids(5, 1), random_ids(3, 2), random_ids(length)
    task = instruction(prompt, answer, full_prompt_ids=np.concatenate([context, prompt]))
    return Sample(context_ids=context, ratio=4.0, tasks=(task,))


def test_the_loss_is_that_of_the_tuned_decoder_on_the_answer_behind_the_full_prompt(
    reader, random_ids
):
    samples = [question(random_ids), question(random_ids, length=30)]
    scores = reader(samples)
    for sample, score in zip(samples, scores, strict=True):
        row = np.concatenate([sample.context_ids, sample.tasks[0].target_ids])
        labels = torch.tensor(row)[None].clone()
        labels[:, :-3] = -100
        direct = reader.decoder(input_ids=torch.tensor(row)[None], labels=labels).loss
        assert float(score.loss_sum.detach()) / 3 == pytest.approx(float(direct.detach()), abs=1e-4)
        assert score.labels == 3


def test_a_task_without_its_full_prompt_is_refused(reader, random_ids):
    context = random_ids(12)
    for task in (instruction(random_ids(4), random_ids(3)), autoencoding(context)):
        with pytest.raises(ConfigError, match="no reading of the full context"):
            reader([Sample(context_ids=context, ratio=4.0, tasks=(task,))])
