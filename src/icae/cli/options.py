"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MemoryPath = Annotated[Path, typer.Argument(metavar="MEMORY", help="A memory file (.icae).")]

MemoryPaths = Annotated[
    list[Path],
    typer.Argument(metavar="MEMORY", help="Memory files (.icae); several are concatenated."),
]

Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter", metavar="PATH", help="Adapter folder.", show_default="the default adapter"
    ),
]

Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="ID",
        help="Base model: a name, a hub id or a folder.",
        show_default="the adapter's",
    ),
]

Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="For example cpu or cuda:0.", show_default="the best found"
    ),
]

Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="Precision of the base model: bfloat16 or float32.",
        show_default="chosen for the device",
    ),
]

Runtime = Annotated[
    str,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="What runs the decoder: auto (vllm with --engine, else llama.cpp where it is "
        "installed and no other device than the CPU is there, else torch), torch, llamacpp "
        "or vllm.",
    ),
]

KeepKv = Annotated[
    bool,
    typer.Option(
        "--kv",
        help="Keep the decoder's key-value cache of the memory in a file beside it, so that "
        "later questions start at once. One that is there is used and renewed anyway.",
    ),
]

MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest answer in tokens.")
]

NearRatio = Annotated[
    float | None,
    typer.Option(
        "--ratio",
        metavar="N",
        help="Context tokens per slot of the new spans.",
        show_default="that of the nearest span",
    ),
]

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of text for people.")
]

Force = Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")]
