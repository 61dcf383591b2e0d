"""The upper bound: the base model with a LoRA that reads whole contexts, nothing compressed.

It is trained on the same triplets by the same loop as an adapter, so that what a memory
answers can be held against what the same number of new weights answers from the text itself.

Shape legend: T scored targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from icae.config.types import Objective
from icae.errors import TrainingError
from icae.model.adapted_decoder import AdaptedDecoder
from icae.model.compilation import compile_layers
from icae.model.icae import NO_KL, Sample, full_context_row
from icae.model.plain_decoder import PlainRow, plain_logits
from icae.model.scoring import TaskScore, score_task
from icae.model.sharding import shard_layers

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class FullContextModel(AdaptedDecoder):
    """A decoder that sees the context itself, tuned by a LoRA.

    Args:
        decoder: The base model; frozen in place and never modified.
        config: Rank, alpha and targets of the LoRA are read, nothing else.
        seed: Seed of the new weights.
    """

    @property
    def decoder(self) -> PreTrainedModel:
        """The tuned decoder: the base weights seen through the LoRA."""
        tuned: PreTrainedModel = self.lora.get_base_model()
        return tuned

    def train(self, mode: bool = True) -> FullContextModel:
        """The base model has no dropout of its own to turn on; it computes as in eval mode."""
        super().train(mode)
        self.lora.eval()
        for layer in self.lora.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                # Only the layer's own flag, which turns recomputing on.
                layer.training = mode
        return self

    def checkpoint_activations(self) -> None:
        """Recompute activations in the backward pass: less memory."""
        self.decoder.gradient_checkpointing_enable({"use_reentrant": False})

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile each transformer layer; see `compile_layers`."""
        compile_layers(self.lora.get_base_model(), backend=backend)

    def shard_layers(self, mesh: DeviceMesh) -> None:
        """Shard the frozen weights over processes."""
        self._decoder = ()  # a second hold on the whole weights
        shard_layers(self.lora.get_base_model(), mesh)

    def logits(self, rows: Sequence[PlainRow]) -> list[Tensor]:
        """Logits [scored, V] of each row, float32, with gradient to the LoRA."""
        return plain_logits(self.decoder, rows)

    def forward(
        self, samples: Sequence[Sample], *, kl_shares: Mapping[Objective, float] = NO_KL
    ) -> list[TaskScore]:
        """Score every instruction behind its whole context.

        Args:
            samples: Samples with instructions alone; ratios do not matter.
            kl_shares: Must be empty: there is no teacher to imitate.

        Returns:
            Scores in order of samples, then of their tasks.

        Raises:
            TrainingError: If a KL share is asked for.
        """
        if kl_shares:
            raise TrainingError(
                "A reader of the full context has no teacher.",
                got=", ".join(f"{name} KL share {share}" for name, share in kl_shares.items()),
                fix="Set objective.kl_share and objective.ft_kl_share to 0.",
            )
        tasks = [(sample, task) for sample in samples for task in sample.tasks]
        logits = self.logits([full_context_row(sample, task) for sample, task in tasks])
        return [score_task(row_TV, task) for row_TV, (_, task) in zip(logits, tasks, strict=True)]
