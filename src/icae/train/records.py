"""What a run says and writes down: a progress bar, JSON-lines metrics, TensorBoard, a loss plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from icae.config import Recipe
from icae.config.extras import import_extra
from icae.config.parsing import to_dict
from icae.errors import TrainingError

_SHOWN = ("ae_loss", "ae_accuracy", "lm_loss", "ft_loss")


class Records:
    """Metrics of a run in ``metrics.jsonl``, under ``tensorboard/`` and on standard error.

    And in the experiment tracker of ``run.log_with``.

    There it is a live bar on a terminal; elsewhere one line for each record of training.
    Records of steps later than those done, of an earlier attempt, are dropped.

    Raises:
        MissingDependencyError: If the `[train]` extra or the tracker is not installed.
        TrainingError: If the tracker does not start.
    """

    def __init__(self, recipe: Recipe, *, step: int) -> None:
        import_extra("tensorboard", purpose="Training", extra="train")
        from torch.utils.tensorboard import SummaryWriter

        self.tracker = None if recipe.run.log_with == "tensorboard" else _tracker(recipe)
        folder = Path(recipe.run.output)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        kept = [r for r in read_records(self.path) if r["step"] <= step]
        self.path.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self.console, self.steps = Console(stderr=True), recipe.optim.steps
        self.bar = Progress(
            TextColumn(recipe.name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("steps", total=self.steps, completed=step, figures="")
        self.bar.start()

    def add(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        """Append one record of figures at a step; show those of training."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(f"{kind}/{name}", value, step)
        if self.tracker is not None:
            self.tracker.log({f"{kind}/{name}": value for name, value in figures.items()}, step)
        if kind == "train":
            self._show(step, figures)

    def _show(self, step: int, figures: Mapping[str, float]) -> None:
        text = "  ".join(f"{name} {figures[name]:.3f}" for name in _SHOWN if name in figures)
        text += f"  {figures['tokens_per_second']:.0f} tok/s"
        self.bar.update(self.task, completed=step, figures=text)
        if not self.console.is_terminal:
            left = (self.steps - step) * figures["seconds"] / step / 60
            told = f"step {step}/{self.steps}  {text}  ~{left:.0f} min left"
            self.console.print(told, highlight=False)

    def close(self) -> None:
        """Flush TensorBoard and the tracker, and leave the terminal as it was."""
        self.board.close()
        if self.tracker is not None:
            self.tracker.finish()
        self.bar.stop()


def _tracker(recipe: Recipe) -> Any:
    """A started tracker of Accelerate: a run in the project ``icae``."""
    name = recipe.run.log_with
    import_extra(name, purpose=f"run.log_with {name}", extra=name)
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    tracker = LOGGER_TYPE_TO_CLASS[name]("icae", name=recipe.name, config=to_dict(recipe))
    try:
        tracker.start()
    except Exception as error:  # of a library and a service that are not ours
        raise TrainingError(
            f"{name} does not start.",
            got=(str(error).splitlines() or [type(error).__name__])[0],
            fix="Log in to it, or for wandb without a network: WANDB_MODE=offline.",
        ) from error
    return tracker


def read_records(path: Path) -> list[dict[str, Any]]:
    """Records of a metrics file; a last line cut by a kill is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def plot_losses(metrics: Path, target: Path) -> Path:
    """Draw training and held-out losses and AE token accuracy over steps as a PNG.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    import_extra("matplotlib", purpose="Training", extra="train")
    from matplotlib.figure import Figure

    records = read_records(metrics)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind, style in (("train", "-"), ("eval", "o--")):
        names = sorted({k for r in records if r["kind"] == kind for k in r})
        for name in names:
            axis = left if "_loss" in name else right if "ae_accuracy" in name else None
            if axis is None:
                continue
            points = [(r["step"], r[name]) for r in records if r["kind"] == kind and name in r]
            axis.plot(*zip(*points, strict=True), style, label=f"{kind} {name}", markersize=4)
    left.set(xlabel="step", ylabel="loss (nats per token)", title="Loss")
    right.set(xlabel="step", ylabel="share of tokens", title="AE token accuracy", ylim=(0, 1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend(fontsize=7)
    figure.savefig(target, dpi=110)
    return target
