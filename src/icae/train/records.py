"""What a run writes down: JSON-lines metrics, TensorBoard, a loss plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icae.config.extras import import_extra


class Records:
    """Metrics of a run in ``metrics.jsonl`` and under ``tensorboard/``.

    Records of steps later than those done, of an earlier attempt, are dropped.

    Raises:
        MissingDependencyError: If the `[train]` extra is not installed.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        import_extra("tensorboard", purpose="Training", extra="train")
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        kept = [r for r in read_records(self.path) if r["step"] <= step]
        self.path.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        """Append one record of figures at a step."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush TensorBoard."""
        self.board.close()


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
