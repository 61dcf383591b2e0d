"""`icae eval`: the experiments, each a command."""

from __future__ import annotations

from typing import Annotated

import typer

from icae.cli.command import Outcome, command
from icae.cli.eval_common import (
    Count,
    Examples,
    Greedy,
    Lengths,
    Numbers,
    Ratios,
    RunOptions,
    Samples,
    Shares,
    SpanLengths,
    Texts,
    ratio_numbers,
    shares,
    size_pairs,
    whole_numbers,
)
from icae.cli.options import ModelOptions, split_names

SUITED = "what suits the form of memory"


@command
def reconstruction(
    *,
    texts: Texts,
    lengths: Lengths = None,
    ratios: Ratios = "2,4,8,16",
    samples: Samples = 64,
    greedy: Greedy = 16,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Reconstruct held-out text: AE loss, token accuracy, BLEU-4 and exact prefix.

    By length and ratio, each with a 95 % bootstrap interval, and beside them what the decoder
    does without memory and with the memory of another text. A context longer than the
    adapter's span length becomes several spans. A run that was stopped goes on where it was.
    """
    chosen, wanted = whole_numbers(lengths), ratio_numbers(ratios)
    from icae.evals import Reconstruction, paper_lengths

    return run.measured(
        model,
        texts,
        lambda span: Reconstruction(
            lengths=chosen or paper_lengths(span),
            ratios=wanted,
            samples=samples,
            greedy=min(greedy, samples),
            seed=run.seed,
        ),
    )


@command
def continuation(
    *,
    texts: Texts,
    lengths: Lengths = None,
    ratios: Ratios = "2,4,8,16",
    tokens: Count = 128,
    samples: Samples = 64,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Measure the perplexity of the true next tokens behind a context and behind its slots.

    Beside the full context and the slots stand no context at all and as many of the last raw
    tokens as there are slots; the same tokens are scored in every row. Figures come with 95 %
    bootstrap intervals. A run that was stopped goes on where it was.

    Args:
        tokens: Scored tokens of the continuation.
    """
    chosen, wanted = whole_numbers(lengths), ratio_numbers(ratios)
    from icae.evals import Continuation, paper_lengths

    return run.measured(
        model,
        texts,
        lambda span: Continuation(
            lengths=chosen or paper_lengths(span),
            ratios=wanted,
            tokens=tokens,
            samples=samples,
            seed=run.seed,
        ),
    )


@command
def random_text(
    *,
    texts: Texts,
    lengths: Lengths = None,
    ratios: Ratios = "4",
    samples: Samples = 64,
    greedy: Greedy = 16,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Reconstruct normal, patterned (each token id + 1) and random text.

    Figures come with 95 % bootstrap intervals. A run that was stopped goes on where it was.
    """
    chosen, wanted = whole_numbers(lengths), ratio_numbers(ratios)
    from icae.evals import RandomText, paper_lengths

    return run.measured(
        model,
        texts,
        lambda span: RandomText(
            lengths=chosen or paper_lengths(span),
            ratios=wanted,
            samples=samples,
            greedy=min(greedy, samples),
            seed=run.seed,
        ),
    )


@command
def refinement(
    *,
    texts: Texts,
    lengths: Numbers = "32",
    ratios: Ratios = "4,8,16",
    starts: Annotated[str, typer.Option(metavar="S,S,...")] = "encoder,chunk-means,noise",
    steps: Count = 60,
    every: Count = 10,
    samples: Samples = 8,
    greedy: Greedy = 8,
    kl: Annotated[float | None, typer.Option(min=0.0, metavar="W", show_default=SUITED)] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="X", show_default=SUITED)] = None,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Measure how fidelity grows while the slots of single spans are refined.

    Every start and ratio gets the same spans and steps; greedy text and the loss of the true
    next tokens are measured before and after. A run that was stopped goes on where it was.

    Args:
        lengths: Span lengths in tokens, at most the adapter's span length.
        starts: What the slots are refined from: encoder, chunk-means (the mean input embedding of
            each slot's chunk), noise.
        steps: Optimiser steps for each span.
        every: Steps between two rows.
        kl: Weight of the KL divergence from the decoder that reads the span; 0 refines for
            writing back alone.
        learning_rate: Adam learning rate as a share of the RMS of what the slots are made of.
    """
    from icae.evals import Refinement

    experiment = Refinement(
        lengths=whole_numbers(lengths),
        ratios=ratio_numbers(ratios),
        starts=split_names(starts),
        steps=steps,
        every=every,
        samples=samples,
        greedy=min(greedy, samples),
        kl=kl,
        learning_rate=learning_rate,
        seed=run.seed,
    )
    return run.measured(model, texts, experiment)


@command
def adaptive(
    *,
    texts: Texts,
    lengths: Numbers = "128",
    ratios: Ratios = "2,4,8",
    min_fidelities: Shares = "0.4,0.5,0.6,0.7,0.8,0.9",
    budgets: Annotated[str, typer.Option(metavar="X,X,...")] = "0.2,0.25,0.35,0.5,0.7",
    refined: Shares = "-",
    steps: Count = 60,
    samples: Samples = 8,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Measure fidelity and next-token loss against decoder positions, adaptive and fixed.

    Every policy gets the same contexts. A run that was stopped goes on where it was, and
    one with more policies measures only these.

    Args:
        lengths: Context lengths in tokens.
        min_fidelities: Fidelities that every span must reach, without refinement; - for none.
        budgets: Decoder positions allowed, as shares of the context tokens; - for none.
        refined: Fidelities that every span must reach, with refinement; - for none.
        steps: Most refinement steps at one ratio.
    """
    from icae.evals import Adaptive

    experiment = Adaptive(
        lengths=whole_numbers(lengths),
        ratios=ratio_numbers(ratios),
        min_fidelities=shares(min_fidelities, "--min-fidelities"),
        budgets=shares(budgets, "--budgets"),
        refined=shares(refined, "--refined"),
        steps=steps,
        samples=samples,
        seed=run.seed,
    )
    return run.measured(model, texts, experiment)


@command
def slots(
    *,
    texts: Texts,
    lengths: SpanLengths = None,
    ratios: Ratios = "4",
    samples: Samples = 16,
    examples: Examples = 2,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Replace each slot by the mean slot and measure what every context token loses.

    Gives a heat map and a locality score: the share of the changes that falls on the slot's own
    chunk. A run that was stopped goes on where it was.
    """
    chosen, wanted = whole_numbers(lengths), ratio_numbers(ratios)
    from icae.evals import Slots

    return run.measured(
        model,
        texts,
        lambda span: Slots(
            lengths=chosen or (span,),
            ratios=wanted,
            samples=samples,
            examples=min(examples, samples),
            seed=run.seed,
        ),
    )


@command
def memorisation(
    *,
    texts: Texts,
    lengths: SpanLengths = None,
    ratios: Ratios = "4",
    samples: Samples = 48,
    examples: Examples = 3,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Write text back from its slots, align it with the source and name every error.

    Number, name, code, like meaning, form, omission, insertion or other, by type of text.
    A run that was stopped goes on where it was.
    """
    chosen, wanted = whole_numbers(lengths), ratio_numbers(ratios)
    from icae.evals import Memorisation

    return run.measured(
        model,
        texts,
        lambda span: Memorisation(
            lengths=chosen or (span,),
            ratios=wanted,
            samples=samples,
            examples=examples,
            seed=run.seed,
        ),
    )


@command
def multi_span(
    *,
    texts: Texts,
    spans: Numbers = "2,4,8,16",
    ratios: Ratios = "2,4,8",
    tokens: Count = 128,
    samples: Samples = 32,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Measure the continuation behind the slots of many spans, and what that is in raw tokens.

    Beside the perplexity behind slots, the full context and no context stands the number of
    the context's last raw tokens that would give the same perplexity as the slots. A run that
    was stopped goes on where it was.

    Args:
        spans: Numbers of spans of full length.
        tokens: Scored tokens of the continuation.
    """
    counts, wanted = whole_numbers(spans, "--spans"), ratio_numbers(ratios)
    from icae.evals import MultiSpan

    return run.measured(
        model,
        texts,
        lambda span: MultiSpan(
            lengths=tuple(n * span for n in counts),
            ratios=wanted,
            tokens=tokens,
            samples=samples,
            seed=run.seed,
        ),
    )


@command
def latency(
    *,
    texts: Texts,
    sizes: Annotated[str, typer.Option(metavar="BxL,...")] = "1x128,4x128,1x256,4x256",
    full: bool = False,
    ratios: Ratios = "4",
    tokens: Annotated[int, typer.Option(min=2, metavar="N")] = 16,
    repeats: Count = 3,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
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
    chosen, wanted = size_pairs(sizes), ratio_numbers(ratios)
    from icae.evals.latency import PAPER_SIZES, PAPER_TOKENS, Latency

    experiment = Latency.of_sizes(
        PAPER_SIZES if full else chosen,
        ratios=wanted,
        tokens=PAPER_TOKENS if full else tokens,
        repeats=repeats,
        seed=run.seed,
    )
    return run.measured(model, texts, experiment)
