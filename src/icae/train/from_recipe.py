"""From a recipe to an adapter folder: what `icae pretrain` and `icae finetune` call."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from icae.config import UNTRAINED, Recipe
from icae.config.checkout import commit
from icae.config.parsing import to_dict
from icae.config.spans import slot_count
from icae.data.shards import ShardSet
from icae.errors import TrainingError
from icae.model.adapted_decoder import AdaptedDecoder
from icae.model.adapter import load_weights, model_class, save_adapter
from icae.model.adapter_files import KINDS, AdapterInfo, adapter_hash, read_info
from icae.model.base import computation_hash, load_decoder, load_tokenizer
from icae.model.base_files import tokenizer_hash
from icae.model.rotary import steady_positions
from icae.model.self_check import checked_base
from icae.train.evaluate import Evaluation
from icae.train.instructions import InstructionSource, TripletSet, load_instructions
from icae.train.records import plot_losses
from icae.train.sampling import SampleSource, draw_window
from icae.train.stages import Stage, check_stage, of_full_context, require_window
from icae.train.trainer import Trainer

CALIBRATION_SPANS = 32


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run made.

    Attributes:
        adapter: The folder of the trained model.
        plot: The loss plot (PNG).
        steps: Optimizer steps done in all.
        seconds: Training seconds in all, resumed parts included.
        metrics: Last held-out figures; known to process 0 alone.
        process: Number of this process among those that trained together; 0 wrote the
            results.
    """

    adapter: Path
    plot: Path
    steps: int
    seconds: float
    metrics: Mapping[str, float]
    process: int = 0


def train(recipe: Recipe, *, stage: Stage, dry_run_steps: int | None = None) -> TrainResult:
    """Run a recipe; go on from its newest checkpoint if there is one.

    With `dry_run_steps` only that many steps are run from the start, into ``<output>-dry-run``.

    Raises:
        ConfigError, TrainingError, BaseModelError, AdapterError, InputError: If the recipe
            or what it names cannot be used.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is written.
    """
    check_stage(recipe, stage)
    if dry_run_steps is not None:
        recipe = _dry_run(recipe, dry_run_steps)
    tokenizer = load_tokenizer(recipe.base)
    token_hash = tokenizer_hash(tokenizer)
    shards = _open_shards(recipe.data.shards, token_hash) if recipe.data.shards else None
    triplets = []
    if recipe.objective.ft_share > 0:
        triplets = load_instructions(recipe, tokenizer)
    model, weights = _build_model(recipe, shards)
    record = AdapterInfo(
        name=recipe.name,
        base_model=recipe.base,
        base_hash=weights,
        base_settings=computation_hash(model.decoder.config),
        tokenizer_hash=token_hash,
        model=recipe.model,
        method=recipe.objective.reader,
        ratios=tuple(sorted({r for stage in recipe.data.ratio_curriculum for r in stage.ratios})),
        recipe=to_dict(recipe),
        data=_sources(recipe, shards, triplets),
        commit=commit() or "",
    )
    together = recipe.data.triplets_per_context
    instructions = InstructionSource(triplets, per_context=together) if triplets else None
    return _run(recipe, model, record, SampleSource(recipe, shards, instructions))


def _run(
    recipe: Recipe, model: AdaptedDecoder, record: AdapterInfo, source: SampleSource
) -> TrainResult:
    """Train, and write the best and the last weights, each with its figures in the record."""
    folder = Path(recipe.run.output)

    def save(target: Path, metrics: Mapping[str, float]) -> None:
        save_adapter(model, replace(record, metrics=dict(metrics)), target)

    evaluation = None
    if recipe.data.eval_shards and not of_full_context(recipe):
        shards = _open_shards(recipe.data.eval_shards, record.tokenizer_hash)
        evaluation = Evaluation(recipe, shards)
    trainer = Trainer(
        recipe,
        model,
        source,
        evaluation=evaluation,
        on_best=lambda step, metrics: save(folder / "best", {"step": step, **metrics}),
    )
    trainer.run()
    hours = trainer.seconds / 3600
    if trainer.accelerator.is_main_process:
        save(
            folder / "adapter",
            {"step": trainer.step, "train_hours": hours, **trainer.metrics},
        )
        plot_losses(folder / "metrics.jsonl", folder / "loss.png")
    trainer.accelerator.wait_for_everyone()
    return TrainResult(
        adapter=folder / "adapter",
        plot=folder / "loss.png",
        steps=trainer.step,
        seconds=trainer.seconds,
        metrics=trainer.metrics,
        process=trainer.accelerator.process_index,
    )


def _dry_run(recipe: Recipe, steps: int) -> Recipe:
    """The recipe of a trial run; what an earlier trial left to resume is removed."""
    output = f"{recipe.run.output}-dry-run"
    shutil.rmtree(Path(output) / "checkpoints", ignore_errors=True)
    run = replace(recipe.run, output=output, log_every=1)
    return replace(recipe, optim=replace(recipe.optim, steps=steps), run=run)


def _open_shards(folder: str, token_hash: str) -> ShardSet:
    shards = ShardSet.open(folder)
    if shards.tokenizer_hash != token_hash:
        raise TrainingError(
            f"The token shards in {folder} were packed with another tokenizer.",
            got=f"tokenizer {shards.tokenizer_hash[:12]}",
            expected=f"tokenizer {token_hash[:12]}",
            fix="Pack them again with `icae data pack --base` of this base model.",
        )
    return shards


def training_device() -> torch.device:
    """This process's GPU (the one that `accelerate launch` gave it), else the CPU.

    Raises:
        TrainingError: If this machine has more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= found:
        raise TrainingError(
            "There are more processes than GPUs on this machine.",
            got=f"process {local + 1} of this machine, {found} GPUs",
            expected="one GPU for each process",
            fix=f"Launch with at most {found} processes a machine.",
        )
    return torch.device("cuda", local)


def load_training_decoder(recipe: Recipe) -> PreTrainedModel:
    """The recipe's base on this process's device, with the attention that trains fastest there.

    On a CPU that is ``eager``: the backward pass of fused attention took a fifth of a step
    (benchmarks/README.md).
    """
    device = training_device()
    return load_decoder(
        recipe.base,
        dtype=getattr(torch, recipe.run.dtype),
        device=device,
        attention="eager" if device.type == "cpu" else "sdpa",
    )


def _build_model(recipe: Recipe, shards: ShardSet | None) -> tuple[AdaptedDecoder, str]:
    """The model with its first weights, and the hash of its base."""
    decoder = load_training_decoder(recipe)
    require_window(recipe, steady_positions(decoder.config))
    make = model_class(recipe.model, recipe.objective.reader)
    model = make(decoder, recipe.model, seed=recipe.optim.seed)
    weights = checked_base(recipe.base, decoder)
    if recipe.init_adapter not in (None, UNTRAINED):
        _start_from(model, str(recipe.init_adapter), recipe, weights)
    elif shards is not None:
        calibrate_slots(model, recipe, shards)
    return model, weights


def _start_from(model: AdaptedDecoder, start: str, recipe: Recipe, weights: str) -> None:
    method = recipe.objective.reader
    info = read_info(start, KINDS[method])
    if (info.method, info.base_hash) != (method, weights):
        raise TrainingError(
            "init_adapter is of another method, or was trained on another base model.",
            got=f"{info.method} on {info.base_model} ({info.base_hash[:12]})",
            expected=f"{method} on {recipe.base} ({weights[:12]})",
        )
    load_weights(model, start, method=method)


def calibrate_slots(model: AdaptedDecoder, recipe: Recipe, shards: ShardSet) -> None:
    """Fit the slot head to a few spans of the training text, at the highest ratio."""
    rng = np.random.default_rng(recipe.optim.seed)
    longest = min(recipe.model.span_length, max(int(n) for n in recipe.data.context_lengths))
    spans = [draw_window(rng, shards, longest, 1)[0] for _ in range(CALIBRATION_SPANS)]
    ratio = max(float(r) for r in recipe.data.ratio_curriculum[-1].ratios)
    model.calibrate(spans, [slot_count(len(ids), ratio) for ids in spans])


def _sources(
    recipe: Recipe, shards: ShardSet | None, triplets: Sequence[TripletSet]
) -> dict[str, str]:
    """What the model is trained on, for its card."""
    data: dict[str, str] = {}
    if shards is not None:
        data |= {source: f"{tokens} tokens" for source, tokens in shards.sources.items()}
    data |= {taken.name: str(taken) for taken in triplets}
    if recipe.init_adapter not in (None, UNTRAINED):
        kind = KINDS[recipe.objective.reader]
        data["started from adapter"] = adapter_hash(str(recipe.init_adapter), kind)[:16]
    return data
