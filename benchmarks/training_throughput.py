"""How close training comes to the machine's matrix-multiply ceiling.

python benchmarks/training_throughput.py recipes/cpu-32-scratch.yaml --threads 2

One run measures the ceiling (TFLOP/s of large matrix products, and of products of the
model's own shapes, in the training precision) and then optimizer steps of `icae.train`
on random tokens; text and shards are not needed, since speed does not depend on them.

Model FLOP of a step, without padding, recomputation or the optimizer:

    4 * P * (encoder tokens + decoder tokens) + 4 * D * V * scored tokens

P: weights of the matrices in the layers of the base model (no embedding, no vocabulary
head). They are frozen, so a token costs 2 P forward and 2 P for the gradient of its input;
there is no gradient of the weights. Encoder tokens: L + K for each span. Decoder tokens:
K + M + (T - 1) for each task of T targets (slots, objective tokens on either side, inputs).
The vocabulary head (D x V) is computed at scored tokens only, forward and for the gradient
of its input.

`processors_used` well below the number of threads (CPU runs) means that something else kept
the processors busy: measure again on an idle machine.

Not in it, and given apart as `uncounted_tflop`: LoRA (6 FLOP per weight and encoder token,
since its weights have gradients) and attention scores (6 * S^2 * heads * head size for each
layer and row of S places: 2 S^2 forward for the causal half, twice that backward).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from icae.cli.train import read_recipe
from icae.config import ModelConfig, Recipe
from icae.config.spans import plan_spans
from icae.evals.metadata import hardware
from icae.model.icae import IcaeModel
from icae.model.objectives import Sample
from icae.train.from_recipe import load_training_decoder
from icae.train.records import read_records
from icae.train.sampling import SampleSource
from icae.train.trainer import Trainer

REPEATS = 5
WARMUP_STEPS = 10
PROFILED_STEPS = 2
LARGE = {"cpu": 2048, "cuda": 8192}
DOCUMENT_TOKENS = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Work:
    """What some samples cost, in tokens.

    Attributes:
        context: Context tokens.
        encoder_rows: Places of each encoder row.
        decoder_rows: Places of each decoder row.
        scored: Scored tokens.
    """

    context: int
    encoder_rows: tuple[int, ...]
    decoder_rows: tuple[int, ...]
    scored: int


class RandomText:
    """Stands for token shards: one long document of random tokens."""

    tokens = DOCUMENT_TOKENS

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def document_at(self, offset: int) -> tuple[int, int]:
        return 0, self.tokens

    def read(self, start: int, end: int) -> Any:
        return np.random.default_rng(start).integers(0, self.vocabulary, end - start)


class RecordingSource(SampleSource):
    """Keeps the samples of every step."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.drawn: dict[int, list[Sample]] = {}

    def draw(self, step: int) -> list[Sample]:
        self.drawn[step] = super().draw(step)
        return self.drawn[step]


def count_work(samples: Sequence[Sample], config: ModelConfig) -> Work:
    """Tokens that samples put through encoder, decoder and vocabulary head."""
    encoder, decoder, scored = [], [], 0
    for sample in samples:
        plans = plan_spans(
            len(sample.context_ids), span_length=config.span_length, ratio=sample.ratio
        )
        encoder += [plan.length + plan.slots for plan in plans]
        slots = sum(plan.slots for plan in plans)
        for task in sample.tasks:
            markers = config.front + config.objective_tokens
            decoder.append(markers + slots + len(task.input_ids))
            scored += task.labels
    return Work(
        context=sum(len(sample.context_ids) for sample in samples),
        encoder_rows=tuple(encoder),
        decoder_rows=tuple(decoder),
        scored=scored,
    )


def layer_shapes(model: IcaeModel) -> Counter[tuple[int, int]]:
    """Shapes of the matrices in the layers of the base model, with how often each occurs."""
    embedding = model.decoder.get_input_embeddings().weight
    matrices = (p for p in model.decoder.base_model.parameters() if p.ndim == 2)
    return Counter(tuple(p.shape) for p in matrices if p is not embedding)


def model_flop(model: IcaeModel, work: Work) -> dict[str, float]:
    """FLOP of a forward and backward pass, by part; see the head of this file."""
    config = model.decoder.config
    weights = sum(rows * columns * n for (rows, columns), n in layer_shapes(model).items())
    vocabulary, width = model.decoder.get_output_embeddings().weight.shape
    lora = sum(p.numel() for name, p in model.trainable().items() if name.startswith("lora."))
    head_size = getattr(config, "head_dim", None) or width // config.num_attention_heads
    heads = config.num_attention_heads * head_size
    squares = sum(size**2 for size in (*work.encoder_rows, *work.decoder_rows))
    return {
        "encoder": 4.0 * weights * sum(work.encoder_rows),
        "decoder": 4.0 * weights * sum(work.decoder_rows),
        "vocabulary_head": 4.0 * width * vocabulary * work.scored,
        "lora": 6.0 * lora * sum(work.encoder_rows),
        "attention": 6.0 * config.num_hidden_layers * heads * squares,
    }


def product_rate(
    rows: int, inner: int, columns: int, *, dtype: torch.dtype, device: torch.device
) -> float:
    """TFLOP/s of ``[rows, inner] @ [inner, columns]``: median of REPEATS timings."""
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype).T
    flop, rates = 2.0 * rows * inner * columns, []
    once = _timed(lambda: left @ right, 1, device)
    once = min(once, _timed(lambda: left @ right, 1, device))
    count = max(1, int(0.05 / max(once, 1e-9)))
    for _ in range(REPEATS):
        rates.append(count * flop / _timed(lambda: left @ right, count, device) / 1e12)
    return statistics.median(rates)


def _timed(product: Any, count: int, device: torch.device) -> float:
    _wait(device)
    begin = time.perf_counter()
    for _ in range(count):
        product()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_ceiling(model: IcaeModel, micro_batch: Sequence[Sample]) -> dict[str, Any]:
    """Rates of one large product, and of the model's own over a micro batch."""
    work = count_work(micro_batch, model.config)
    tokens = len(work.encoder_rows) * max(work.encoder_rows)
    size = LARGE.get(model.device.type, 4096)
    place = {"dtype": model.dtype, "device": model.device}
    shapes = layer_shapes(model)
    rates = {
        (rows, columns): product_rate(tokens, columns, rows, **place) for rows, columns in shapes
    }
    weights = {(rows, columns): n * rows * columns for (rows, columns), n in shapes.items()}
    vocabulary, width = model.decoder.get_output_embeddings().weight.shape
    seconds = sum(weights[shape] / rate for shape, rate in rates.items())
    return {
        "large": product_rate(size, size, size, **place),
        "large_shape": f"{size}x{size}x{size}",
        "layers": sum(weights.values()) / seconds,
        "vocabulary_head": product_rate(tokens, width, vocabulary, **place),
        "shapes": {f"{tokens}x{columns}x{rows}": rate for (rows, columns), rate in rates.items()},
    }


def trial_recipe(recipe: Recipe, *, steps: int, micro_batch: int | None, folder: Path) -> Recipe:
    """The recipe, shortened: text samples only, no evaluation, a record of every step."""
    size = micro_batch or recipe.optim.micro_batch_size
    batch = max(size, recipe.optim.batch_size // size * size)
    return replace(
        recipe,
        objective=replace(recipe.objective, ft_share=0.0),
        optim=replace(
            recipe.optim, steps=steps, batch_size=batch, micro_batch_size=size, warmup_steps=0
        ),
        run=replace(recipe.run, output=str(folder), log_every=1, eval_every=0),
    )


def train(recipe: Recipe, model: IcaeModel) -> tuple[dict[int, list[Sample]], list[float]]:
    """Run the steps of a recipe: the samples, and the seconds spent up to each step's end."""
    shards: Any = RandomText(model.decoder.get_input_embeddings().weight.shape[0])
    source = RecordingSource(recipe, shards, ())
    Trainer(recipe, model, source).run()
    records = read_records(Path(recipe.run.output) / "metrics.jsonl")
    return source.drawn, [0.0, *(r["seconds"] for r in records if r["kind"] == "train")]


def measure_training(recipe: Recipe, model: IcaeModel, *, warm_up: int) -> dict[str, Any]:
    """Tokens and TFLOP a second over the steps after the warm-up."""
    begin, used = time.perf_counter(), time.process_time()
    drawn, ends = train(recipe, model)
    used = (time.process_time() - used) / (time.perf_counter() - begin)
    steps = range(warm_up, recipe.optim.steps)
    seconds = [ends[step + 1] - ends[step] for step in steps]
    samples = [sample for step in steps for sample in drawn[step]]
    work = count_work(samples, model.config)
    flop = model_flop(model, work)
    counted = flop["encoder"] + flop["decoder"] + flop["vocabulary_head"]
    total = sum(seconds)
    return {
        "steps": len(steps),
        "seconds": total,
        "processors_used": used,
        "step_seconds_median": statistics.median(seconds),
        "samples": len(samples),
        "context_tokens": work.context,
        "encoder_tokens": sum(work.encoder_rows),
        "decoder_tokens": sum(work.decoder_rows),
        "scored_tokens": work.scored,
        "context_tokens_per_second": work.context / total,
        "tflop": counted / 1e12,
        "tflop_by_part": {k: flop[k] / 1e12 for k in ("encoder", "decoder", "vocabulary_head")},
        "uncounted_tflop": {k: flop[k] / 1e12 for k in ("lora", "attention")},
        "tflop_per_second": counted / total / 1e12,
    }


def print_profile(recipe: Recipe, model: IcaeModel) -> None:
    """Print the operations that take most time to standard error."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if model.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        train(recipe, model)
    by = f"self_{'cuda' if model.device.type == 'cuda' else 'cpu'}_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=25), file=sys.stderr)


def describe(recipe: Recipe, model: IcaeModel) -> dict[str, Any]:
    """What was measured, and on what."""
    return {
        "recipe": recipe.name,
        "base": recipe.base,
        "dtype": str(model.dtype).removeprefix("torch."),
        "batch_size": recipe.optim.batch_size,
        "micro_batch_size": recipe.optim.micro_batch_size,
        "gradient_checkpointing": recipe.run.gradient_checkpointing,
        "compile": recipe.run.compile,
        "threads": torch.get_num_threads(),
        "hardware": hardware(model.device),
    }


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("recipe", type=Path, help="recipe file (YAML)")
    parser.add_argument("--steps", type=int, default=10, help="measured steps (default 10)")
    parser.add_argument(
        "--warm-up", type=int, default=WARMUP_STEPS, help=f"steps before (default {WARMUP_STEPS})"
    )
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--micro-batch", type=int, help="micro batch (default: the recipe's)")
    parser.add_argument("--threads", type=int, help="threads (default: torch's)")
    parser.add_argument("--profile", action="store_true", help="print the top operations too")
    parser.add_argument("-o", "--output", type=Path, help="write the JSON to this file as well")
    arguments = parser.parse_args()
    for name in ("steps", "warm_up", "micro_batch", "threads"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return arguments


def main() -> None:
    """Measure and print one JSON object."""
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        recipe = trial_recipe(
            read_recipe(arguments.recipe, settings=arguments.settings),
            steps=arguments.warm_up + arguments.steps,
            micro_batch=arguments.micro_batch,
            folder=Path(folder) / "measured",
        )
        decoder = load_training_decoder(recipe)
        model = IcaeModel(decoder, recipe.model, seed=recipe.optim.seed)
        shards: Any = RandomText(decoder.get_input_embeddings().weight.shape[0])
        first = SampleSource(recipe, shards, ()).draw(0)
        ceiling = measure_ceiling(model, first[: recipe.optim.micro_batch_size])
        training = measure_training(recipe, model, warm_up=arguments.warm_up)
        if arguments.profile:
            run = replace(recipe.run, output=str(Path(folder) / "profiled"))
            optim = replace(recipe.optim, steps=PROFILED_STEPS)
            print_profile(replace(recipe, run=run, optim=optim), model)
    rate = training["tflop_per_second"]
    result = {
        **describe(recipe, model),
        "ceiling_tflop_per_second": ceiling,
        "training": training,
        "share_of_ceiling": {
            "large": rate / ceiling["large"],
            "layers": rate / ceiling["layers"],
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
