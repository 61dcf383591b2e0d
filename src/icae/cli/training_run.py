"""What `icae pretrain` and `icae finetune` share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli import console, engine
from icae.cli.outcome import Outcome
from icae.cli.recipe_overrides import read_recipe

if TYPE_CHECKING:
    from icae.train import TrainResult

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file (YAML).")]

DryRun = Annotated[
    int | None,
    typer.Option("--dry-run", min=1, metavar="N", help="Stop after N steps, to try a recipe."),
]

RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR", help="Folder of the run.", show_default="the recipe's"
    ),
]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change a setting of the recipe; the value is YAML; repeatable.",
    ),
]


def run_stage(
    stage: engine.Stage,
    recipe_path: Path,
    *,
    dry_run: int | None,
    output: Path | None,
    settings: list[str] | None,
) -> Outcome:
    """Train with a recipe; progress is logged to standard error.

    Args:
        stage: Which objectives are trained.
        recipe_path: The recipe file.
        dry_run: Steps of a trial run, or None for the whole run.
        output: Folder of the run, or None for the recipe's.
        settings: Changes to the recipe, ``section.key=value``.

    Raises:
        ConfigError: If the recipe is wrong.
        TrainingError: If the run cannot start, resume or go on.
        MissingDependencyError: If the training packages are not installed.
    """
    recipe = read_recipe(recipe_path, settings=settings or (), output=output)
    console.log_to_stderr(logging.INFO)
    result = engine.run_training(recipe, stage=stage, dry_run_steps=dry_run)
    if result.process > 0:
        raise typer.Exit  # process 0 of the launch tells the result
    payload = {
        "stage": stage,
        "recipe": recipe.name,
        "adapter": str(result.adapter),
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "metrics": dict(result.metrics),
    }
    return Outcome(payload=payload, show=lambda: _show(result, recipe.name))


def _show(result: TrainResult, recipe: str) -> None:
    console.print_figures(
        {
            "recipe": recipe,
            "adapter": str(result.adapter),
            "steps": str(result.steps),
            "time": f"{result.seconds:.1f} s",
            **{name: f"{value:.4g}" for name, value in result.metrics.items()},
        }
    )
