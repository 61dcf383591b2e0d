"""`icae data pack`: a corpus to token shards that training reads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from icae.cli import console, engine
from icae.cli.options import AsJson
from icae.cli.outcome import Outcome, reported
from icae.errors import InputError

if TYPE_CHECKING:
    from icae.data.shards import ShardSet


Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, metavar="N", help="Read only N documents.", show_default="all"),
]


@reported
def pack(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Corpus files or folders.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="New folder for the shards.")
    ],
    base: Annotated[
        str,
        typer.Option(
            "--base", metavar="ID", help="Base model whose tokenizer cuts the text into tokens."
        ),
    ],
    min_tokens: Annotated[
        int,
        typer.Option("--min-tokens", min=1, metavar="N", help="Leave out shorter documents."),
    ] = 32,
    limit: Limit = None,
    as_json: AsJson = False,
) -> Outcome:
    """Tokenize a corpus into a folder of shards."""
    from icae.data.corpus import read_corpus
    from icae.data.shards import pack as pack_shards

    _refuse_occupied(output)
    start = time.perf_counter()
    tokenizer, digest = engine.open_tokenizer(base)
    with console.status("Packing") as relabel:
        shards = pack_shards(
            read_corpus(paths, limit_documents=limit),
            tokenizer,
            output,
            tokenizer_hash=digest,
            min_tokens=min_tokens,
            on_progress=lambda seen, tokens: relabel(
                f"Packing: {seen:,} documents, {tokens:,} tokens read"
            ),
        )
    payload = {
        **_payload(shards),
        "output": str(output),
        "base": base,
        "seconds": round(time.perf_counter() - start, 3),
    }
    return Outcome(payload=payload, show=lambda: _show(output, shards))


def _payload(shards: ShardSet) -> dict[str, Any]:
    return {
        "documents": shards.documents,
        "tokens": shards.tokens,
        "sources": dict(shards.sources),
        "tokenizer_hash": shards.tokenizer_hash,
    }


def _refuse_occupied(folder: Path) -> None:
    """Refuse a target that is in use before the corpus is read."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            "The output folder is in use.",
            got=str(folder),
            expected="a new or empty folder",
            fix="Name another folder with --output.",
        )


def _show(folder: Path, shards: ShardSet) -> None:
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("source", footer="all")
    table.add_column("tokens", justify="right", footer=f"{shards.tokens:,}")
    for source, tokens in sorted(shards.sources.items()):
        table.add_row(console.preview(source), f"{tokens:,}")
    out = console.results()
    out.print(table)
    out.print(f"{shards.documents:,} documents in {folder}", soft_wrap=True)
