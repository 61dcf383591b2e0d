"""`icae data build` and `icae data pack`: corpora to the token shards that training reads."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli import console
from icae.cli.command import Outcome, command

if TYPE_CHECKING:
    from icae.data.build_report import BuildReport
    from icae.data.shards import ShardSet


@command
def build(
    *,
    config: Annotated[Path, typer.Argument(metavar="CONFIG")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR")],
) -> Outcome:
    """Clean, deduplicate, mix and tokenize corpora.

    Args:
        config: The build as a YAML file.
        output: New folder for the shards.
    """
    from icae.data.build import build as build_data
    from icae.data.build_config import load_build_config
    from icae.model.base import load_tokenizer
    from icae.model.base_files import tokenizer_hash

    settings = load_build_config(config)
    tokenizer = load_tokenizer(settings.base)
    digest = tokenizer_hash(tokenizer)
    with console.status("Building") as relabel:
        report = build_data(settings, tokenizer, output, tokenizer_hash=digest, on_progress=relabel)
    payload = {"output": str(output), **asdict(report)}
    return Outcome(payload=payload, show=lambda: _show_build(output, report))


def _show_build(folder: Path, report: BuildReport) -> None:
    kept = sum(source.kept for source in report.sources)
    table = console.table_with_totals(
        {
            **{"source": "all", "kept": f"{kept:,}", "tokens": f"{report.tokens:,}"},
            **{"share": "", "wanted": "", "copies": ""},
        }
    )
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


@command
def pack(
    *,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR")],
    base: Annotated[str, typer.Option(metavar="ID")],
    min_tokens: Annotated[int, typer.Option(min=1, metavar="N")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", show_default="all")] = None,
) -> Outcome:
    """Tokenize a corpus into a folder of shards.

    Args:
        paths: Corpus files or folders.
        output: New folder for the shards.
        base: Base model whose tokenizer cuts the text into tokens.
        min_tokens: Leave out shorter documents.
        limit: Read only N documents.
    """
    from icae.data.corpus import read_corpus
    from icae.data.shards import pack as pack_shards
    from icae.model.base import load_tokenizer
    from icae.model.base_files import tokenizer_hash

    start, tokenizer = time.perf_counter(), load_tokenizer(base)
    with console.status("Packing") as relabel:
        shards = pack_shards(
            read_corpus(paths, limit_documents=limit),
            tokenizer,
            output,
            tokenizer_hash=tokenizer_hash(tokenizer),
            min_tokens=min_tokens,
            on_progress=lambda seen, tokens: relabel(
                f"Packing: {seen:,} documents, {tokens:,} tokens read"
            ),
        )
    payload = {
        "documents": shards.documents,
        "tokens": shards.tokens,
        "sources": dict(shards.sources),
        "tokenizer_hash": shards.tokenizer_hash,
        "output": str(output),
        "base": base,
        "seconds": round(time.perf_counter() - start, 3),
    }
    return Outcome(payload=payload, show=lambda: _show_pack(output, shards))


def _show_pack(folder: Path, shards: ShardSet) -> None:
    table = console.table_with_totals({"source": "all", "tokens": f"{shards.tokens:,}"})
    for source, tokens in sorted(shards.sources.items()):
        table.add_row(console.preview(source), f"{tokens:,}")
    out = console.results()
    out.print(table)
    out.print(f"{shards.documents:,} documents in {folder}", soft_wrap=True)
