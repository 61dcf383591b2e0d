"""The upper bound: the base model with a LoRA that reads whole contexts, nothing compressed.

It is trained on the same triplets by the same loop as an adapter, so that what a memory
answers can be held against what the same number of new weights answers from the text itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedModel

from icae.errors import ConfigError
from icae.model.adapted_decoder import AdaptedDecoder
from icae.model.decoder import DecoderRow, plain_logits
from icae.model.losses import TaskScore, score_task
from icae.model.objectives import DecoderTask, Sample

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class FullContextModel(AdaptedDecoder):
    """A decoder that sees the context itself, tuned by a LoRA."""

    @property
    def decoder(self) -> PreTrainedModel:
        """The tuned decoder: the base weights seen through the LoRA."""
        return self.adapted

    @property
    def trees(self) -> tuple[PreTrainedModel, ...]:
        """The one module tree that a training step runs."""
        return (self.adapted,)

    def shard_layers(self, mesh: DeviceMesh) -> None:
        """Shard the frozen weights of every layer over processes."""
        self._decoder = ()  # a second hold on the whole weights
        super().shard_layers(mesh)

    def forward(self, samples: Sequence[Sample]) -> list[TaskScore]:
        """Score every instruction behind its whole context, in order of samples and their tasks.

        Raises:
            ConfigError: If a task does not carry its full prompt.
        """
        tasks = [task for sample in samples for task in sample.tasks]
        logits = plain_logits(self.decoder, [_full_context_row(task) for task in tasks])
        return [score_task(row_TV, task) for row_TV, task in zip(logits, tasks, strict=True)]


def _full_context_row(task: DecoderTask) -> DecoderRow:
    """The prompt with the whole context in it, then the answer."""
    if task.full_prompt_ids is None:
        raise ConfigError(
            f"A {task.objective} task has no reading of the full context.",
            expected="an instruction with its full prompt",
        )
    return DecoderRow.plain(
        np.concatenate([task.full_prompt_ids, task.scored_ids]), scored=task.labels
    )
