"""`icae pretrain` and `icae finetune`: an adapter trained with a recipe."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Exit, Option

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.errors import ConfigError

if TYPE_CHECKING:
    from icae.config import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Which recipe is trained, and what is changed in it.

    Attributes:
        recipe: A recipe file (YAML).
        dry_run: Stop after N steps, to try a recipe.
        output: Folder of the run.
        settings: Change a setting of the recipe; the value is YAML; repeatable.
    """

    recipe: Annotated[Path, Argument(metavar="RECIPE")]
    dry_run: Annotated[int | None, Option(min=1, metavar="N")] = None
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="DIR", show_default="the recipe's")
    ] = None
    settings: Annotated[list[str] | None, Option("--set", metavar="SECTION.KEY=VALUE")] = None

    def train(self, stage: Literal["pretrain", "finetune"]) -> Outcome:
        """Train; progress is logged to standard error."""
        recipe = read_recipe(self.recipe, settings=self.settings or (), output=self.output)
        console.log_to_stderr(logging.INFO)
        from icae import train as training

        result = training.train(recipe, stage=stage, dry_run_steps=self.dry_run)
        if result.process > 0:
            raise Exit  # process 0 of the launch tells the result
        made = {"recipe": recipe.name, "adapter": str(result.adapter), "steps": result.steps}
        payload = {
            "stage": stage,
            **made,
            "seconds": round(result.seconds, 3),
            "metrics": dict(result.metrics),
        }
        figures = {
            **{name: str(value) for name, value in made.items()},
            "time": f"{result.seconds:.1f} s",
            **{name: f"{value:.4g}" for name, value in result.metrics.items()},
        }
        return Outcome(payload=payload, show=lambda: console.print_figures(figures))


@command
def pretrain(*, run: TrainOptions) -> Outcome:
    """Train an adapter on plain text (autoencoding and text continuation)."""
    return run.train("pretrain")


@command
def finetune(*, run: TrainOptions) -> Outcome:
    """Train a pretrained adapter on instructions about contexts."""
    return run.train("finetune")


def read_recipe(path: Path, *, settings: Sequence[str] = (), output: Path | None = None) -> Recipe:
    """Read a recipe file, change settings, and only then check it.

    Settings are ``section.key=value``, applied in order; the value is YAML, a number in a path
    counts list items from 0. Those of the model that are left out are those of its init_adapter.

    Raises:
        ConfigError: If the file cannot be read, a setting has another form or leads
            nowhere, or the recipe with its changes does not fit `Recipe`.
        AdapterError: If the adapter that it starts from cannot be read.
    """
    from icae.config import Recipe
    from icae.config.parsing import from_dict, read_yaml

    raw = read_yaml(path)
    for setting in settings:
        _apply(raw, setting)
    if output is not None:
        _set(raw, ["run", "output"], str(output), where="--output")
    _inherit_model(raw)
    return from_dict(Recipe, raw, where=str(path))


def _inherit_model(raw: Any) -> None:
    """Take what a recipe does not say of the model from the adapter that it starts from."""
    from icae.config import UNTRAINED
    from icae.config.parsing import to_dict
    from icae.model.adapter_files import KINDS, read_info

    start = raw.get("init_adapter") if isinstance(raw, dict) else None
    method = (raw.get("objective") or {}).get("reader", "memory") if start else None
    kind = next((kind for name, kind in KINDS.items() if name == method), None)
    if start != UNTRAINED and isinstance(start, str) and kind is not None:
        raw["model"] = {**to_dict(read_info(start, kind).model), **(raw.get("model") or {})}


def _apply(raw: Any, setting: str) -> None:
    """Change one value of a recipe as YAML gives it, in place."""
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(
            "A setting cannot be read.", got=f"--set {setting}", expected="section.key=value"
        )
    from icae.config.parsing import parse_yaml

    value = parse_yaml(text, where=f"The value of --set {key.strip()}")
    _set(raw, parts, value, where=f"--set {setting}")


def _set(raw: Any, parts: Sequence[str], value: Any, *, where: str) -> None:
    """Put a value into nested dicts and lists, in place; dicts that are missing are made."""
    at = raw
    for depth, part in enumerate(parts):
        path = ".".join(parts[:depth])
        step: str | int = part
        if isinstance(at, list):
            if not part.isdecimal() or int(part) >= len(at):
                raise _nowhere(where, f"no item {part} in {path}", f"0..{len(at) - 1}")
            step = int(part)
        elif not isinstance(at, dict):
            raise _nowhere(where, f"{path or 'the recipe'} is {at!r}", "a section")
        if depth == len(parts) - 1:
            at[step] = value
        elif isinstance(at, dict) and at.get(step) is None:
            at[step] = {}
        at = at[step]


def _nowhere(where: str, got: str, expected: str) -> ConfigError:
    return ConfigError(f"{where}: there is no such place.", got=got, expected=expected)
