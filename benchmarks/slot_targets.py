"""Do refined slots teach the encoder? Regression on them, beside and in place of the AE loss.

python benchmarks/slot_targets.py recipes/cpu-screen.yaml --set data.shards=... -o runs/slot-targets

The samples of a recipe (seed by seed the same that `icae pretrain` draws) are refined from
their chunk means against the frozen decoder, AE alone, until it writes them back. Then a fresh
encoder is trained on the same samples in the same order with

    ae_weight * L_AE + slot_weight * mean((slots - targets)^2) / RMS(input embeddings)^2

once for each `--weights AE:SLOTS`. Held-out AE loss and token accuracy are as in `icae pretrain`.
Only one ratio and contexts of one span each are supported: the question needs no more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from icae.cli.recipe_overrides import read_recipe
from icae.compression.refinement import RefineConfig, RefineTask, refine
from icae.config import Recipe
from icae.config.spans import slot_count
from icae.data.shards import ShardSet
from icae.evals.starts import mean_slots
from icae.model import IcaeModel, Sample, score_task
from icae.train.evaluate import Evaluation
from icae.train.run import calibrate_slots, load_training_decoder
from icae.train.sampling import SampleSource
from icae.train.trainer import build_optimizer, learning_rate_share


def fresh_model(recipe: Recipe, shards: ShardSet) -> IcaeModel:
    """The encoder that `icae pretrain` starts from."""
    model = IcaeModel(load_training_decoder(recipe), recipe.model, seed=recipe.optim.seed)
    calibrate_slots(model, recipe, shards)
    return model


def refined_targets(
    model: IcaeModel, samples: Sequence[Sample], steps: int
) -> tuple[list[Tensor], dict[str, float]]:
    """Slots [K, D] of each sample that the frozen decoder writes its context back from."""
    counts = [slot_count(len(s.context_ids), s.ratio) for s in samples]
    tasks = [
        RefineTask(
            token_ids=s.context_ids, slots_KD=mean_slots(model, s.context_ids, k).astype(np.float32)
        )
        for s, k in zip(samples, counts, strict=True)
    ]
    config = RefineConfig(steps=steps, target=0.97, margin=0.0, kl_weight=0.0, slack=np.inf)
    found: dict[int, Tensor] = {}
    taken, begin, fidelity = 0, time.perf_counter(), []
    for index, refined in refine(model, tasks, config):
        found[index] = torch.from_numpy(refined.slots_KD)
        taken += refined.steps
        fidelity.append(max(refined.history))
        if len(found) % 40 == 0:
            print(f"refined {len(found)}/{len(tasks)}", file=sys.stderr, flush=True)
    figures = {
        "mean_steps": taken / len(tasks),
        "mean_fidelity": sum(fidelity) / len(fidelity),
        "seconds": time.perf_counter() - begin,
    }
    return [found[i] for i in range(len(tasks))], figures


def train(
    recipe: Recipe,
    shards: ShardSet,
    batches: Sequence[Sequence[tuple[Sample, Tensor]]],
    ae_weight: float,
    slot_weight: float,
) -> dict[str, float]:
    """Train a fresh encoder on batches of samples with their targets; held-out figures."""
    model = fresh_model(recipe, shards).train()
    optimizer = build_optimizer(model, recipe.optim)
    trained = list(model.trainable().values())
    begin = time.perf_counter()
    for step, batch in enumerate(batches):
        samples, targets = [s for s, _ in batch], [t for _, t in batch]
        slots = model.encode_spans([s.context_ids for s in samples], [len(t) for t in targets])
        errors = [
            nn.functional.mse_loss(own.float(), target)
            for own, target in zip(slots, targets, strict=True)
        ]
        distance = torch.stack(errors).mean() / model.embedding_rms**2
        loss = slot_weight * distance
        if ae_weight > 0:
            loss = loss + ae_weight * _ae_loss(model, samples, slots)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, recipe.optim.clip_norm)
        share = learning_rate_share(recipe.optim, step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 20 == 0:
            line = f"step {step + 1}  loss {loss.item():.3f}  slot distance {distance.item():.3f}"
            print(line, file=sys.stderr, flush=True)
    assert recipe.data.eval_shards is not None
    figures = Evaluation(recipe, ShardSet.open(recipe.data.eval_shards)).run(model)
    return {**figures, "slot_distance": distance.item(), "seconds": time.perf_counter() - begin}


def _ae_loss(model: IcaeModel, samples: Sequence[Sample], slots: Sequence[Tensor]) -> Tensor:
    tasks = [s.tasks[0] for s in samples]
    spans = [[(len(s.context_ids), len(k))] for s, k in zip(samples, slots, strict=True)]
    logits = model.label_logits(slots, spans, tasks)
    scores = [score_task(row, task) for row, task in zip(logits, tasks, strict=True)]
    return torch.stack([s.loss_sum for s in scores]).sum() / sum(s.labels for s in scores)


def main() -> None:
    """Refine, train once for each pair of weights, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--refine", type=int, default=40, metavar="STEPS")
    parser.add_argument("--weights", default="1:0,1:1,0:1", metavar="AE:SLOTS,...")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    recipe = read_recipe(options.recipe, settings=options.settings)
    shards = ShardSet.open(recipe.data.shards)
    source = SampleSource(recipe, shards)
    drawn = [source.draw(step) for step in range(recipe.optim.steps)]
    samples = [sample for batch in drawn for sample in batch]
    targets, report = refined_targets(fresh_model(recipe, shards).eval(), samples, options.refine)
    pairs = iter(zip(samples, targets, strict=True))
    batches = [[next(pairs) for _ in batch] for batch in drawn]
    result: dict[str, object] = {"targets": report, "samples": len(samples), "runs": {}}
    runs: dict[str, dict[str, float]] = {}
    options.output.mkdir(parents=True, exist_ok=True)
    for pair in options.weights.split(","):
        ae_weight, slot_weight = map(float, pair.split(":"))
        runs[pair] = train(recipe, shards, batches, ae_weight, slot_weight)
        result["runs"] = runs
        text = json.dumps(result, indent=2)
        (options.output / "slot-targets.json").write_text(text + "\n", encoding="utf-8")
        print(pair, json.dumps(runs[pair]), flush=True)


if __name__ == "__main__":
    main()
