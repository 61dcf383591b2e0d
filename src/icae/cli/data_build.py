"""`icae data build`: corpora to a clean mixture of token shards, from one YAML file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from icae.cli import console, engine
from icae.cli.options import AsJson
from icae.cli.outcome import Outcome, reported

if TYPE_CHECKING:
    from icae.data.build_report import BuildReport


@reported
def build(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The build as a YAML file.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for the shards; new, or to go on in."
        ),
    ],
    as_json: AsJson = False,
) -> Outcome:
    """Clean, deduplicate, mix and tokenize corpora; run it again to go on after a stop."""
    from icae.data.build import build as build_data
    from icae.data.build_config import load_build_config

    settings = load_build_config(config)
    tokenizer, digest = engine.open_tokenizer(settings.base)
    with console.status("Building") as relabel:
        report = build_data(settings, tokenizer, output, tokenizer_hash=digest, on_progress=relabel)
    return Outcome(payload=_payload(report, output), show=lambda: _show(output, report))


def _payload(report: BuildReport, output: Path) -> dict[str, Any]:
    return {"output": str(output), **asdict(report)}


def _show(folder: Path, report: BuildReport) -> None:
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("source", footer="all")
    table.add_column("kept", justify="right", footer=f"{sum(s.kept for s in report.sources):,}")
    table.add_column("tokens", justify="right", footer=f"{report.tokens:,}")
    table.add_column("share", justify="right")
    table.add_column("wanted", justify="right")
    table.add_column("copies", justify="right")
    for source in report.sources:
        table.add_row(
            console.preview(source.name),
            f"{source.kept:,}",
            f"{source.train_tokens:,}",
            console.percent_text(source.share_reached),
            console.percent_text(source.share_wanted),
            f"{source.copies:.2f}",
        )
    out = console.results()
    out.print(table)
    for source in report.sources:
        if source.missing_tokens:
            console.note(f"{source.name} is too small: {source.missing_tokens:,} tokens missing.")
    out.print(
        f"{report.documents:,} documents in {folder / 'train'}, "
        f"{report.validation_documents:,} in {folder / 'validation'}; see report.md there",
        soft_wrap=True,
    )
