"""Ten training steps of each objective on a tiny model, and their losses on file.

Run this only when the losses are meant to change, and say why in the commit::

    python tests/golden/regenerate.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from icae.config import ModelConfig, ObjectiveConfig, OptimConfig, Recipe, RunConfig
from icae.config.types import Objective
from icae.model.icae import IcaeModel
from icae.model.objectives import DecoderTask, Sample, autoencoding, continuation, instruction
from icae.train.records import read_records
from icae.train.trainer import Trainer

FOLDER = Path(__file__).parent
STEPS = 10
WEIGHTS: dict[Objective, ObjectiveConfig] = {
    "ae": ObjectiveConfig(ae_weight=1.0),
    "lm": ObjectiveConfig(ae_weight=0.0),
    "ft": ObjectiveConfig(ft_share=1.0),
}


class GoldenSource:
    """Two samples a step: one of a single span, one of two spans with a short tail."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def draw(self, step: int) -> list[Sample]:
        """The samples of a step, from numpy's seeded legacy generator, which never changes."""
        rng = np.random.RandomState(step)
        contexts = [rng.randint(0, 128, size) for size in (16, 21)]
        tails = [rng.randint(0, 128, 6) for _ in contexts]
        return [
            Sample(context_ids=context, ratio=ratio, tasks=(self._task(context, tail),))
            for context, tail, ratio in zip(contexts, tails, (2.0, 4.0), strict=True)
        ]

    def _task(self, context: np.ndarray, tail: np.ndarray) -> DecoderTask:
        if self.objective == "ae":
            return autoencoding(context)
        if self.objective == "lm":
            return continuation(tail)
        return instruction(tail[:3], tail[3:])


def tiny_model() -> IcaeModel:
    """A Llama of two layers in float32 whose weights are sines, and fixed seeds on top."""
    decoder = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=128,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
        )
    ).float()
    with torch.no_grad():
        for index, weight in enumerate(p for p in decoder.parameters() if p.dim() == 2):
            places = torch.arange(weight.numel(), dtype=torch.float64) + 1000 * index
            weight.copy_(0.3 * torch.sin(places * 1.7).reshape(weight.shape))
    model = IcaeModel(decoder, ModelConfig(span_length=16, lora_rank=4, lora_alpha=4))
    with torch.no_grad():
        for index, (name, weight) in enumerate(model.trainable().items()):
            if not name.startswith("head."):
                places = torch.arange(weight.numel(), dtype=torch.float64) + 500 * index
                weight.copy_(0.1 * torch.cos(places * 2.3).reshape(weight.shape))
    rng = np.random.RandomState(1000)
    model.calibrate([rng.randint(0, 128, 16) for _ in range(8)], [4] * 8)
    return model


def golden_losses(objective: Objective, output: Path) -> list[float]:
    """Loss (nats per token) at each of ten steps.

    Args:
        objective: The objective that is trained alone.
        output: Folder for the run.
    """
    recipe = Recipe(
        name=f"golden-{objective}",
        objective=WEIGHTS[objective],
        optim=OptimConfig(
            steps=STEPS,
            batch_size=2,
            micro_batch_size=1,
            learning_rate=3e-3,
            token_learning_rate=1e-2,
            warmup_steps=2,
        ),
        run=RunConfig(output=str(output), dtype="float32", log_every=1),
    )
    Trainer(recipe, tiny_model(), GoldenSource(objective)).run()  # type: ignore[arg-type]
    return [r[f"{objective}_loss"] for r in read_records(output / "metrics.jsonl")]


def golden_file(objective: Objective) -> Path:
    """Where the losses of an objective are kept."""
    return FOLDER / f"losses_{objective}.json"


def main() -> None:
    """Write the losses of every objective."""
    for objective in WEIGHTS:
        with tempfile.TemporaryDirectory() as folder:
            losses = golden_losses(objective, Path(folder))
        record = {"objective": objective, "losses": [round(x, 6) for x in losses]}
        golden_file(objective).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"{golden_file(objective).name}: {losses[0]:.4f} -> {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
