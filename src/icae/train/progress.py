"""The progress bar of a training run, on stderr."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from icae.config import Recipe


class Progress:
    """Shows step, loss, AE token accuracy, tokens/s and time left.

    On a terminal it is a live bar; elsewhere one line for each report.
    """

    def __init__(self, recipe: Recipe, done: int) -> None:
        self.console = Console(stderr=True)
        self.total = recipe.optim.steps
        self.bar = Bar(
            TextColumn(recipe.name),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("steps", total=self.total, completed=done, figures="")
        self.bar.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bar.stop()

    def update(self, step: int, figures: Mapping[str, float]) -> None:
        """Show the figures of the last steps."""
        names = ("ae_loss", "ae_accuracy", "lm_loss", "ft_loss")
        text = "  ".join(f"{n} {figures[n]:.3f}" for n in names if n in figures)
        text += f"  {figures['tokens_per_second']:.0f} tok/s"
        self.bar.update(self.task, completed=step, figures=text)
        if not self.console.is_terminal:
            per_step = figures["seconds"] / step
            left = (self.total - step) * per_step / 60
            self.console.print(
                f"step {step}/{self.total}  {text}  ~{left:.0f} min left", highlight=False
            )
