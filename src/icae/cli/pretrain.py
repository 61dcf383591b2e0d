"""`icae pretrain`: train an adapter on plain text."""

from __future__ import annotations

from icae.cli.options import AsJson
from icae.cli.outcome import Outcome, reported
from icae.cli.training_run import DryRun, RecipePath, RunFolder, Settings, run_stage


@reported
def pretrain(
    recipe: RecipePath,
    dry_run: DryRun = None,
    output: RunFolder = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> Outcome:
    """Train an adapter on plain text (autoencoding and text continuation)."""
    return run_stage("pretrain", recipe, dry_run=dry_run, output=output, settings=settings)
