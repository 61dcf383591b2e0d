"""The training loop on Accelerate: pretraining and instruction fine-tuning."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from icae.config import OptimConfig, Recipe
from icae.config.extras import import_extra
from icae.errors import TrainingError
from icae.model.adapted_decoder import AdaptedDecoder
from icae.model.losses import StepLoss
from icae.model.objectives import Sample
from icae.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from icae.train.evaluate import Evaluation
from icae.train.records import Records, read_records
from icae.train.sampling import SampleSource, own_share
from icae.train.sharing import SHARINGS
from icae.train.tally import Tally

log = logging.getLogger(__name__)

FINAL_RATE = 0.1
"""Learning rate at the end of a run, as a share of the peak."""


def learning_rate_share(config: OptimConfig, step: int) -> float:
    """Learning rate of update `step` (from 0) as a share of the peak: warmup, then cosine."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    span = max(1, config.steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(model: AdaptedDecoder, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; LoRA A, LoRA B, and tokens with slot head, each at its own rate."""
    rates = {
        "lora_A": config.learning_rate,
        "lora_B": config.learning_rate * config.lora_b_multiplier,
        "own": config.token_learning_rate,
    }
    members: dict[str, list[torch.nn.Parameter]] = {kind: [] for kind in rates}
    for name, parameter in model.trainable().items():
        kind = next((kind for kind in ("lora_A", "lora_B") if f".{kind}." in name), "own")
        members[kind].append(parameter)
    groups = [{"params": members[k], "lr": rate, "peak": rate} for k, rate in rates.items()]
    return torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98))


class Trainer:
    """Runs a recipe on a model, from its newest checkpoint if there is one.

    Args:
        on_best: Called with the figures whenever held-out AE loss is the best so far.
        stop_at: Step at which to stop early as if interrupted (after a checkpoint), or None.

    Attributes:
        step: Steps done.
        seconds: Training seconds, those before a stop included.
        metrics: The last held-out figures.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: AdaptedDecoder,
        source: SampleSource,
        *,
        evaluation: Evaluation | None = None,
        on_best: Callable[[int, Mapping[str, float]], None] | None = None,
        stop_at: int | None = None,
    ) -> None:
        import_extra("accelerate", purpose="Training", extra="train")
        from accelerate import Accelerator

        self.recipe, self.model, self.source = recipe, model, source
        self.evaluation, self.on_best, self.stop_at = evaluation, on_best, stop_at
        self.folder = Path(recipe.run.output)
        self.accelerator = Accelerator(cpu=model.device.type == "cpu", mixed_precision="no")
        self._check_processes()
        self.optimizer = build_optimizer(model, recipe.optim)
        self.shared = SHARINGS[recipe.run.sharing](self.accelerator, model, self.optimizer)
        self.step, self.seconds, self.best = 0, 0.0, math.inf
        self.metrics: dict[str, float] = {}
        self.evaluated = -1
        if recipe.run.gradient_checkpointing:
            model.checkpoint_activations()
        if recipe.run.compile == "layers":
            model.compile_layers()

    def _check_processes(self) -> None:
        """Refuse what the processes of a launch cannot share."""
        world, optim = self.accelerator.num_processes, self.recipe.optim
        micro_batches = optim.batch_size // optim.micro_batch_size
        if optim.micro_batch_size < world:
            raise TrainingError(
                "There are more processes than samples in a micro-batch.",
                got=f"{world} processes, optim.micro_batch_size {optim.micro_batch_size}",
                expected="at least one sample for each (it counts samples of all processes)",
                fix=f"--set optim.micro_batch_size={optim.micro_batch_size * world} and a batch "
                f"size of {micro_batches} times that, or fewer processes.",
            )
        if world == 1 and self.recipe.run.sharing != "replicas":
            raise TrainingError(
                "There are no processes to share the weights.",
                got=f"run.sharing {self.recipe.run.sharing}, one process",
                expected="several processes",
                fix="Start it with `accelerate launch`, or --set run.sharing=replicas.",
            )
        if self.accelerator.distributed_type not in ("NO", "MULTI_CPU", "MULTI_GPU"):
            raise TrainingError(
                "The trainer does not know this way of sharing a model.",
                got=str(self.accelerator.distributed_type),
                expected="distributed_type MULTI_GPU; run.sharing of the recipe decides the rest",
                fix="Use a file of recipes/accelerate; for FSDP2, --set run.sharing=frozen-shards.",
            )

    def run(self) -> None:
        """Train to the last step. Ctrl-C or SIGTERM saves a checkpoint, then raises.

        Raises:
            KeyboardInterrupt: After an interrupt, once the checkpoint is written.
            TrainingError: If a checkpoint does not belong to this recipe, or loss is not finite.
        """
        newest = newest_checkpoint(self.folder / "checkpoints")
        if newest is not None:
            self.step, self.seconds = load_checkpoint(
                newest, self.model, self.optimizer, self.recipe
            )
            self._recall()
            log.info("resuming %s at step %d", newest, self.step)
        self._check_steps()
        writes = self.accelerator.is_main_process
        recording = closing(Records(self.recipe, step=self.step)) if writes else nullcontext()
        with catch_signals() as interrupted, recording as records:
            self._loop(records, interrupted)

    def _check_steps(self) -> None:
        """Refuse to go on if the processes did not find the same checkpoint."""
        steps = self.accelerator.gather(torch.tensor([self.step], device=self.accelerator.device))
        if steps.min() != steps.max():
            raise TrainingError(
                "The processes do not resume at the same step.",
                got=f"steps {steps.tolist()}",
                expected="one run.output that every process reads",
                fix="Put run.output on a disk that all machines share.",
            )

    def _add_up(self, own: Tensor) -> Tensor:
        """The sum over all processes of a tensor that each holds."""
        if self.accelerator.num_processes == 1:
            return own
        every: Tensor = self.accelerator.reduce(own.to(self.accelerator.device), "sum")
        return every

    def _recall(self) -> None:
        """Take up the held-out figures of the steps before the checkpoint."""
        for record in read_records(self.folder / "metrics.jsonl"):
            if record["kind"] == "eval" and record["step"] <= self.step:
                self.evaluated = record["step"]
                self.metrics = {k: v for k, v in record.items() if k not in ("kind", "step")}
                self.best = min(self.best, self.metrics["ae_loss"])

    def _loop(self, records: Records | None, interrupted: threading.Event) -> None:
        run, saved, tally, tokens, elapsed = self.recipe.run, time.monotonic(), Tally(), 0, 0.0
        self.model.train()
        while self.step < self.recipe.optim.steps:
            begin = time.monotonic()
            samples = self.source.draw(self.step)
            norm, rate = self._update(samples, tally)
            self.step += 1
            tokens += sum(len(s.context_ids) for s in samples)
            spent = time.monotonic() - begin
            self.seconds += spent
            elapsed += spent
            if self.step % run.log_every == 0 or self.step == self.recipe.optim.steps:
                figures = tally.figures(self._add_up) | {"learning_rate": rate, "grad_norm": norm}
                figures |= {"tokens_per_second": tokens / elapsed, "seconds": self.seconds}
                if records is not None:
                    records.add("train", self.step, figures)
                tally, tokens, elapsed = Tally(), 0, 0.0
            if run.eval_every and self.step % run.eval_every == 0:
                self._evaluate(records)
            # One process may see a signal a step before the others: they stop together.
            told = float(interrupted.is_set() or self.step == self.stop_at)
            stopping = bool(self._add_up(torch.tensor(told)) > 0)
            if stopping or time.monotonic() - saved > run.checkpoint_minutes * 60:
                self._save()
                saved = time.monotonic()
            if stopping:
                raise KeyboardInterrupt
        if self.evaluated != self.step:
            self._evaluate(records)
        self._save()

    def _update(self, samples: Sequence[Sample], tally: Tally) -> tuple[float, float]:
        """One optimizer update over the whole batch; returns (gradient norm, LoRA rate)."""
        optim = self.recipe.optim
        share = learning_rate_share(optim, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        step_loss = StepLoss.of(self.recipe.objective, samples)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = own_share(samples, rank=rank, world=world)
        size = max(1, optim.micro_batch_size // world)
        micro = [mine[i : i + size] for i in range(0, len(mine), size)]
        for i, batch in enumerate(micro):
            last = i == len(micro) - 1
            with self.shared.accumulating(last=last):
                scores = self.shared.model(batch)
                # Gradients are averaged over processes; the loss is a sum over them.
                self.accelerator.backward(step_loss.part(scores) * world)
            tally.add(scores)
        self.shared.average_gradients()
        trained = self.model.trainable().values()
        norm = float(self.accelerator.clip_grad_norm_(trained, optim.clip_norm))
        if not math.isfinite(norm):
            raise TrainingError(
                f"The loss or its gradient is not finite at step {self.step}.",
                got=f"gradient norm {norm}",
                fix="Lower the learning rates and start again in another run.output.",
            )
        self.shared.optimizer.step()
        self.shared.optimizer.zero_grad()
        return norm, optim.learning_rate * share

    def _evaluate(self, records: Records | None) -> None:
        if self.evaluation is None or not self.shared.evaluates():
            return
        with torch.compiler.set_stance("force_eager"):
            self.metrics, self.evaluated = self.evaluation.run(self.model), self.step
        self.model.train()
        if records is not None:
            records.add("eval", self.step, self.metrics)
        log.info("step %d held-out %s", self.step, self.metrics)
        if self.metrics["ae_loss"] < self.best:
            self.best = self.metrics["ae_loss"]
            if self.on_best is not None and self.accelerator.is_main_process:
                self.on_best(self.step, self.metrics)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.folder / "checkpoints",
                self.model,
                self.optimizer,
                step=self.step,
                recipe=self.recipe,
                seconds=self.seconds,
            )


@contextmanager
def catch_signals() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        log.warning("stopping after this step; a checkpoint will be written")
        event.set()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
