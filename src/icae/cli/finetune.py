"""`icae finetune`: train a pretrained adapter on instructions."""

from __future__ import annotations

from icae.cli.options import AsJson
from icae.cli.outcome import Outcome, reported
from icae.cli.training_run import DryRun, RecipePath, RunFolder, Settings, run_stage


@reported
def finetune(
    recipe: RecipePath,
    dry_run: DryRun = None,
    output: RunFolder = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> Outcome:
    """Train a pretrained adapter on instructions about contexts."""
    return run_stage("finetune", recipe, dry_run=dry_run, output=output, settings=settings)
