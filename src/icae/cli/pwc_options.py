"""Options of `icae pwc build`, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

CONTEXTS, ANSWERS, SERVICE = "Contexts", "Prompts and answers", "Service behind a URL"

Corpus = Annotated[
    list[str],
    typer.Option(
        "--corpus",
        metavar="PATH",
        help="Corpus file, folder or dataset (hf:owner/name); may be given several times.",
    ),
]
Llm = Annotated[
    str,
    typer.Option(
        "--llm",
        metavar="URL|self|none",
        help="Who writes the answers: an OpenAI-compatible service, for example "
        "http://127.0.0.1:8000/v1; self: the frozen decoder with the full context; none: "
        "nobody, only self-supervised prompts.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Model of the service.", show_default="none"),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Training triplets, .jsonl or .parquet; the other files lie beside it.",
    ),
]
Contexts = Annotated[
    int,
    typer.Option("--contexts", min=1, metavar="N", help="Contexts.", rich_help_panel=CONTEXTS),
]
Tokens = Annotated[
    str,
    typer.Option(
        "--tokens",
        metavar="MIN-MAX",
        help="Shortest and longest context in tokens.",
        rich_help_panel=CONTEXTS,
    ),
]
PerDocument = Annotated[
    int,
    typer.Option(
        "--per-document",
        min=1,
        metavar="N",
        help="Most contexts of one document.",
        rich_help_panel=CONTEXTS,
    ),
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="PATH",
        help="Evaluation set; no context shares a run of words with it. May be given several "
        "times.",
        show_default="none",
        rich_help_panel=CONTEXTS,
    ),
]
TestShare = Annotated[
    float,
    typer.Option(
        "--test-share",
        min=0.0,
        max=0.99,
        metavar="X",
        help="Share of the documents that go to the test file.",
        rich_help_panel=CONTEXTS,
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="N", help="Seed of every choice.", rich_help_panel=CONTEXTS),
]
Specific = Annotated[
    int | None,
    typer.Option(
        "--specific",
        min=0,
        metavar="N",
        help="Prompts for each context that fit it alone.",
        show_default="10; with self 2",
        rich_help_panel=ANSWERS,
    ),
]
General = Annotated[
    int | None,
    typer.Option(
        "--general",
        min=0,
        metavar="N",
        help="General prompts for each context: title, summary, keywords and so on.",
        show_default="5; with self 3",
        rich_help_panel=ANSWERS,
    ),
]
FromCorpus = Annotated[
    int | None,
    typer.Option(
        "--from-corpus",
        min=0,
        metavar="N",
        help="Self-supervised prompts for each context, whose answers stand in the corpus.",
        show_default="0; with none 4",
        rich_help_panel=ANSWERS,
    ),
]
CorpusTasks = Annotated[
    str | None,
    typer.Option(
        "--corpus-tasks",
        metavar="T,T,...",
        help="Which self-supervised prompts, for example corpus-name,corpus-year.",
        show_default="all",
        rich_help_panel=ANSWERS,
    ),
]
MaxReplyTokens = Annotated[
    int | None,
    typer.Option(
        "--max-reply-tokens",
        min=1,
        metavar="N",
        help="Longest reply.",
        show_default="4096; with self 128",
        rich_help_panel=ANSWERS,
    ),
]
Asks = Annotated[
    int,
    typer.Option(
        "--asks",
        min=1,
        metavar="N",
        help="Replies to pay for until one can be used.",
        rich_help_panel=SERVICE,
    ),
]
ApiKeyEnv = Annotated[
    str,
    typer.Option(
        "--api-key-env",
        metavar="NAME",
        help="Environment variable that holds the key.",
        rich_help_panel=SERVICE,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        "--temperature",
        min=0.0,
        max=2.0,
        metavar="X",
        help="Sampling temperature.",
        rich_help_panel=SERVICE,
    ),
]
TokenField = Annotated[
    Literal["max_tokens", "max_completion_tokens"],
    typer.Option(
        "--token-field",
        help="Field that limits the reply; newer OpenAI models want the longer name.",
        rich_help_panel=SERVICE,
    ),
]
Concurrency = Annotated[
    int,
    typer.Option(
        "--concurrency",
        min=1,
        metavar="N",
        help="Requests in flight at once.",
        rich_help_panel=SERVICE,
    ),
]
RequestsPerMinute = Annotated[
    float | None,
    typer.Option(
        "--requests-per-minute",
        metavar="X",
        help="Most requests in a minute.",
        show_default="no limit",
        rich_help_panel=SERVICE,
    ),
]
TokensPerMinute = Annotated[
    float | None,
    typer.Option(
        "--tokens-per-minute",
        metavar="X",
        help="Most tokens, read and written, in a minute.",
        show_default="no limit",
        rich_help_panel=SERVICE,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="Silence of the service after which an attempt has failed.",
        rich_help_panel=SERVICE,
    ),
]
Attempts = Annotated[
    int,
    typer.Option(
        "--attempts",
        min=1,
        metavar="N",
        help="Attempts for one request, with growing pauses.",
        rich_help_panel=SERVICE,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print what the build would take in requests, tokens and money; ask nobody.",
        rich_help_panel=SERVICE,
    ),
]
PriceOption = Annotated[
    str | None,
    typer.Option(
        "--price",
        metavar="IN,OUT",
        help="Price of a million tokens read and of a million written, in any currency.",
        show_default="unknown",
        rich_help_panel=SERVICE,
    ),
]
