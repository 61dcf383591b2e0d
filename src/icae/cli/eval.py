"""`icae eval`: the experiments on held-out text, each a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from icae.cli.command import Outcome, command
from icae.cli.eval_common import Greedy, Numbers, Ratios, RunOptions, Samples
from icae.cli.options import Count, ModelOptions

Texts = Annotated[
    list[Path], typer.Argument(metavar="TEXTS", help="Held-out corpus files or folders.")
]
Lengths = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="Context lengths in tokens.",
        show_default="100,200,300,400,500 and the adapter's span length",
    ),
]
SpanLengths = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="Context lengths in tokens.",
        show_default="the adapter's span length",
    ),
]
Examples = Annotated[
    int, typer.Option(min=0, metavar="N", help="Contexts shown in the result file.")
]

SUITED = "what suits the form of memory"


def experiment(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of the settings of an experiment: a function of them without a body.

    Args:
        name: The class of the experiment in `icae.evals`.
    """

    def made(declared: Callable[..., None]) -> Callable[..., None]:
        def measure(
            *, texts: Texts, run: RunOptions, model: ModelOptions, **settings: Any
        ) -> Outcome:
            return run.measured(name, texts, model, **settings)

        texts, run, model, _ = inspect.signature(measure).parameters.values()
        own = inspect.signature(declared).parameters.values()
        hints = [get_type_hints(f, include_extras=True) for f in (declared, measure)]
        measure.__signature__ = inspect.Signature([texts, *own, run, model])  # type: ignore[attr-defined]
        measure.__annotations__ = {**hints[0], **hints[1]}
        del measure.__annotations__["settings"]
        measure.__doc__, measure.__name__ = declared.__doc__, declared.__name__
        return command(measure)

    return made


@experiment("Reconstruction")
def reconstruction(
    *,
    lengths: Lengths = None,
    ratios: Ratios = "2,4,8,16",
    samples: Samples = 64,
    greedy: Greedy = 16,
) -> None:
    """Reconstruct held-out text: AE loss, token accuracy, BLEU-4 and exact prefix.

    By length and ratio, each with a 95 % bootstrap interval, and beside them what the decoder
    does without memory and with the memory of another text. A context longer than the
    adapter's span length becomes several spans. A run that was stopped goes on where it was.
    """


@experiment("Continuation")
def continuation(
    *,
    lengths: Lengths = None,
    ratios: Ratios = "2,4,8,16",
    tokens: Count = 128,
    samples: Samples = 64,
) -> None:
    """Measure the perplexity of the true next tokens behind a context and behind its slots.

    Beside the full context and the slots stand no context at all and as many of the last raw
    tokens as there are slots; the same tokens are scored in every row. Figures come with 95 %
    bootstrap intervals. A run that was stopped goes on where it was.

    Args:
        tokens: Scored tokens of the continuation.
    """


@experiment("RandomText")
def random_text(
    *,
    lengths: Lengths = None,
    ratios: Ratios = "4",
    samples: Samples = 64,
    greedy: Greedy = 16,
) -> None:
    """Reconstruct normal, patterned (each token id + 1) and random text.

    Figures come with 95 % bootstrap intervals. A run that was stopped goes on where it was.
    """


@experiment("Refinement")
def refinement(
    *,
    lengths: Numbers = "32",
    ratios: Ratios = "4,8,16",
    steps: Count = 60,
    every: Count = 10,
    samples: Samples = 8,
    greedy: Greedy = 8,
    kl: Annotated[float | None, typer.Option(min=0.0, metavar="W", show_default=SUITED)] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="X", show_default=SUITED)] = None,
) -> None:
    """Measure how fidelity grows while the slots of single spans are refined.

    Every ratio gets the same spans and steps; greedy text and the loss of the true
    next tokens are measured before and after. A run that was stopped goes on where it was.

    Args:
        lengths: Span lengths in tokens, at most the adapter's span length.
        steps: Optimiser steps for each span.
        every: Steps between two rows.
        kl: Weight of the KL divergence from the decoder that reads the span; 0 refines for
            writing back alone.
        learning_rate: Adam learning rate as a share of the RMS of what the slots are made of.
    """


@experiment("Slots")
def slots(
    *,
    lengths: SpanLengths = None,
    ratios: Ratios = "4",
    samples: Samples = 16,
    examples: Examples = 2,
) -> None:
    """Replace each slot by the mean slot and measure what every context token loses.

    Gives a heat map and a locality score: the share of the changes that falls on the slot's own
    chunk. A run that was stopped goes on where it was.
    """


@experiment("Memorisation")
def memorisation(
    *,
    lengths: SpanLengths = None,
    ratios: Ratios = "4",
    samples: Samples = 48,
    examples: Examples = 3,
) -> None:
    """Write text back from its slots, align it with the source and name every error.

    Number, name, code, form, omission, insertion or other, by type of text.
    A run that was stopped goes on where it was.
    """


@experiment("MultiSpan")
def multi_span(
    *,
    spans: Numbers = "2,4,8,16",
    ratios: Ratios = "2,4,8",
    tokens: Count = 128,
    samples: Samples = 32,
) -> None:
    """Measure the continuation behind the slots of many spans, and what that is in raw tokens.

    Beside the perplexity behind slots, the full context and no context stands the number of
    the context's last raw tokens that would give the same perplexity as the slots. A run that
    was stopped goes on where it was.

    Args:
        spans: Numbers of spans of full length.
        tokens: Scored tokens of the continuation.
    """


@experiment("NeedleMap")
def needle(
    *,
    lengths: Numbers = "256,512,1024,2048",
    depths: Annotated[str, typer.Option(metavar="F,F,...")] = "0,0.25,0.5,0.75,1",
    kinds: Annotated[
        str, typer.Option(metavar="K,K,...")
    ] = "number,name,uuid,several,values,variables,keys,words",
    ratios: Ratios = "2,4,8",
    readers: Annotated[str, typer.Option(metavar="R,R,...")] = (
        "full context,memory,adaptive memory,faithful memory,memory with note,store search,"
        "first tokens"
    ),
    min_fidelity: Annotated[float, typer.Option(min=0.0, max=1.0, metavar="X")] = 0.9,
    max_new_tokens: Count = 48,
    samples: Samples = 8,
) -> None:
    """Hide a fact at a depth of a text, ask for it, and draw who finds it where.

    A heat map over depth and length for every reader and ratio. Needles are made from the
    seed, the text around them is held out. Figures come with 95 % bootstrap intervals. A run
    that was stopped goes on where it was.

    Args:
        lengths: Lengths of the texts in tokens, up to the decoder's limit.
        depths: Where the needle stands: 0 begin, 1 end.
        kinds: Kinds of needles: number, name, uuid; several (four facts, one asked for), values
            (three of one thing), variables (a chain), keys (with values), words (the commonest).
        readers: Who reads: full context, memory, adaptive memory (as many positions, chosen span
            by span), faithful memory (--min-fidelity), memory with note, store search (then the
            memory of what it finds), first tokens, no context; and the peers of icae eval qa.
        min_fidelity: Fidelity that every span of the faithful memory must reach.
        max_new_tokens: Longest answer in tokens.
    """


@experiment("Latency")
def latency(
    *,
    sizes: Annotated[str, typer.Option(metavar="BxL,...")] = "1x128,4x128,1x256,4x256",
    full: bool = False,
    ratios: Ratios = "4",
    tokens: Annotated[int, typer.Option(min=2, metavar="N")] = 16,
    repeats: Count = 3,
) -> None:
    """Time full context, compress + decode, and decode with the memory cached.

    Seconds, time to the first token, decoded tokens a second, key-value cache and peak memory,
    and the speed-up over the full context within the same run. A run that was stopped goes on
    where it was.

    Args:
        sizes: Batch x context length, as 4x128.
        full: The paper's 8x512, 8x2048 and 32x512, 128 tokens written.
        tokens: Tokens written in each row.
        repeats: Times each is measured.
    """
