"""`icae eval qa`: what a memory answers, beside what the context itself would."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icae.cli.eval_run import Ratios, Replace, ResultFolder, ratio_numbers, run_experiment
from icae.cli.names import split_names
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported

Triplets = Annotated[
    list[Path],
    typer.Argument(
        metavar="TRIPLETS",
        help="Files of (context, prompt, answer) triplets as JSON lines, also under xz, gz or "
        "zst, or folders of them. Each file is one data set.",
    ),
]

Questions = Annotated[
    int,
    typer.Option(
        "--questions", min=0, metavar="N", help="Questions drawn from each file; 0 asks all."
    ),
]

AnswerLimit = Annotated[
    int,
    typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest answer in tokens."),
]

MaxContext = Annotated[
    int | None,
    typer.Option(
        "--max-context",
        min=1,
        metavar="N",
        help="Leave out questions about longer contexts (tokens); they are counted.",
        show_default="what the decoder's window holds",
    ),
]

Readers = Annotated[
    str,
    typer.Option(
        "--readers",
        metavar="R,R,...",
        help="Who answers: memory, full context, no context, first tokens (the context cut off "
        "after as many tokens as slots), own summary (the decoder's, of as many tokens), "
        "other memory (that of another question's context); and where named: refined memory, "
        "adaptive memory (as many positions, chosen span by span), memory with note (of "
        "figures, names and code that the slots lose), verbatim memory (the context's tokens "
        "where slots stand).",
        show_default="the first six",
    ),
]

UpperBound = Annotated[
    Path | None,
    typer.Option(
        "--upper-bound",
        metavar="DIR",
        help="Folder of a full-context reader, trained with objective.reader: full-context, to "
        "answer from the whole context as well as a LoRA of that size can.",
    ),
]

RefineSteps = Annotated[
    int,
    typer.Option(
        "--refine", min=1, metavar="STEPS", help="Most steps of a span, for the refined memory."
    ),
]

Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Seed of the draw of questions.")
]


@reported
def qa(
    triplets: Triplets,
    ratios: Ratios = "2,4,8,16",
    questions: Questions = 200,
    readers: Readers = "memory,full context,no context,first tokens,own summary,other memory",
    upper_bound: UpperBound = None,
    refine: RefineSteps = 60,
    max_new_tokens: AnswerLimit = 64,
    max_context: MaxContext = None,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Answer questions from memory, from the full context and from what else could be read.

    Exact match, F1 and ROUGE of free answers, how many are empty, repeating or unterminated,
    and the loss on the reference answer, each with a 95 % bootstrap interval over contexts; and
    the memory minus every other reader, question by question. A run that was stopped goes on
    where it was.
    """
    from icae.evals import QaSettings

    settings = QaSettings(
        ratios=ratio_numbers(ratios),
        questions=questions or None,
        max_new_tokens=max_new_tokens,
        max_context=max_context,
        readers=split_names(readers),
        upper_bound=upper_bound,
        refine_steps=refine,
        seed=seed,
    )
    return run_experiment(
        triplets,
        lambda span_length: settings,
        output=output,
        replace=force,
        adapter=adapter,
        base=base,
        device=device,
        dtype=dtype,
    )
