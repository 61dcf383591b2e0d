"""`icae eval qa`, `rivals` and `judge`: questions, who answers them, and who judges the answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.eval_common import (
    Greedy,
    KeyVariable,
    Name,
    Numbers,
    Ratios,
    ResultFolder,
    RunOptions,
    Samples,
    command_line,
    judge_service,
    settings_of,
    shown,
)
from icae.cli.options import Count, ModelOptions

if TYPE_CHECKING:
    from icae.evals.judge import AnswerSet

Triplets = Annotated[
    list[Path],
    typer.Argument(
        metavar="TRIPLETS",
        help="Files of (context, prompt, answer) triplets as JSON lines, also under xz, gz or "
        "zst, or folders of them. Each file is one data set.",
    ),
]
Questions = Annotated[
    int, typer.Option(min=0, metavar="N", help="Questions drawn from each file; 0 asks all.")
]

Price = Annotated[float, typer.Option(min=0.0, metavar="USD")]


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """What a question and its answer may take.

    Attributes:
        max_new_tokens: Longest answer in tokens.
        max_context: Leave out questions about longer contexts (tokens); they are counted.
    """

    max_new_tokens: Count = 64
    max_context: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default="what the decoder's window holds"),
    ] = None


@command
def qa(
    *,
    triplets: Triplets,
    ratios: Ratios = "2,4,8,16",
    questions: Questions = 200,
    readers: Annotated[
        str, typer.Option(metavar="R,R,...", show_default="the first six")
    ] = "memory,full context,no context,first tokens,own summary,other memory",
    upper_bound: Annotated[Path | None, typer.Option(metavar="DIR")] = None,
    input_price: Price = 0.1,
    output_price: Price = 0.4,
    refine: Annotated[int, typer.Option(min=1, metavar="STEPS")] = 60,
    answers: AnswerOptions,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Answer questions from memory, from the full context and from what else could be read.

    Exact match, F1 and ROUGE of free answers, how many are empty, repeating or unterminated,
    and the loss on the reference answer, each with a 95 % bootstrap interval over contexts; and
    the memory minus every other reader, question by question. A run that was stopped goes on
    where it was.

    Args:
        readers: Who answers: memory, full context, no context, first tokens (the context cut off
            after as many tokens as slots), own summary (the decoder's, of as many tokens), other
            memory (that of another question's context); and where named: refined memory, adaptive
            memory (as many positions, chosen span by span), memory with note (of figures, names
            and code that the slots lose), verbatim memory (the context's tokens where slots
            stand); and peers in as many positions: best chunks (BM25), LLMLingua, and what the
            decoder's own cache keeps: sliding window, key norm, SnapKV, SnapKV with question.
        upper_bound: Folder of a full-context reader, trained with objective.reader: full-context,
            to answer from the whole context as well as a LoRA of that size can.
        input_price: What a million tokens or slots that are read cost, in the column of costs.
        output_price: What a million tokens that are written cost.
        refine: Most steps of a span, for the refined memory.
    """
    asked = {"ratios": ratios, "questions": questions or None, **asdict(answers)}
    who = {"readers": readers, "upper_bound": upper_bound, "refine_steps": refine}
    asked |= {"input_price": input_price, "output_price": output_price}
    return run.measured("Qa", triplets, model, **asked, **who)


@command
def rivals(
    *,
    triplets: Triplets,
    ratios: Ratios = "4",
    questions: Questions = 100,
    trained: Annotated[list[Path] | None, typer.Option(metavar="DIR")] = None,
    texts: Annotated[list[Path] | None, typer.Option(metavar="PATH")] = None,
    lengths: Numbers = "32,64",
    samples: Samples = 64,
    greedy: Greedy = 16,
    answers: AnswerOptions,
    run: RunOptions,
    model: ModelOptions,
) -> Outcome:
    """Set the memory beside trained rivals, GIST and AutoCompressor, at equal positions.

    All read with the same frozen decoder; full and no context, truncation, a summary and LLMLingua
    stand beside them (more of what needs no training: icae eval qa --readers). Loss on the
    reference answer, F1, BLEU-4, tokens in the decoder, their key-value cache and seconds; with
    --texts also how much of held-out text is written back. A rival whose package is not installed
    is named with the reason. A run that was stopped goes on where it was.

    Args:
        trained: Folder of a trained rival: GIST or AutoCompressor, of a run with
            objective.reader: gist or autocompressor. May be given several times.
        texts: Held-out corpus file or folder: the memory and the trained rivals also write it
            back and go on from it. May be given several times.
        lengths: Context lengths of --texts in tokens.
    """
    grid = settings_of({"lengths": lengths, "samples": samples, "greedy": greedy})
    from icae.evals import RivalTexts

    held = RivalTexts(paths=tuple(texts), **grid) if texts else None
    asked = {"ratios": ratios, "questions": questions or None, **asdict(answers)}
    who = {"trained": tuple(trained or ()), "texts": held}
    return run.measured("Rivals", triplets, model, **asked, **who)


@dataclass(frozen=True, kw_only=True)
class AnswerFiles:
    """The two sets of answers that are judged.

    Attributes:
        first: Result of icae eval qa.
        second: What they are set against; may be the same.
        first_reads: Whose answers of FIRST.
        second_reads: Whose answers of SECOND.
        ratio: Ratio, where there are several.
    """

    first: Annotated[Path, typer.Argument(metavar="FIRST")]
    second: Annotated[Path, typer.Argument(metavar="SECOND")]
    first_reads: Name = "memory"
    second_reads: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default="full context, or as --first-reads in another file"
        ),
    ] = None
    ratio: Annotated[float | None, typer.Option(min=1.0, metavar="R")] = None

    def read(self) -> tuple[AnswerSet, AnswerSet]:
        """Both sets.

        Raises:
            InputError: If a file cannot be read, or does not hold exactly one such set.
        """
        from icae.evals.judge import read_answers

        same = self.first == self.second
        against = self.second_reads or ("full context" if same else self.first_reads)
        return (
            read_answers(self.first, reads=self.first_reads, ratio=self.ratio),
            read_answers(self.second, reads=against, ratio=self.ratio),
        )


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """A judge and how it is asked.

    Attributes:
        judge_url: Base URL of an OpenAI-compatible judge.
        judge_model: Its model.
        timeout: Seconds for one reply.
        attempts: Attempts for one reply.
        max_tokens: Most tokens of one reply.
        concurrency: Requests in flight.
    """

    judge_url: Annotated[str, typer.Option(metavar="URL")]
    judge_model: Name
    key_variable: KeyVariable = "OPENAI_API_KEY"
    timeout: Annotated[float, typer.Option(min=0.1, metavar="S")] = 60.0
    attempts: Count = 3
    max_tokens: Count = 512
    concurrency: Count = 4


@command
def judge(
    *,
    files: AnswerFiles,
    asked: JudgeOptions,
    seed: Annotated[int, typer.Option(min=0, metavar="N")] = 0,
    output: ResultFolder = Path("eval"),
) -> Outcome:
    """Judge two sets of answers to the same questions, each question in both orders.

    For example memory against full context (the same qa result twice), slots against a summary
    of equal length (--second-reads "own summary"), or two adapters (two qa results). A reply
    without a verdict, or none at all, is counted apart and never as a loss. Replies are kept,
    so a run that was stopped goes on where it was.

    Args:
        seed: Bootstrap seed.
    """
    from icae.evals.judge import judge_answers
    from icae.evals.results import ResultFiles

    service, (first, second) = judge_service(**asdict(asked)), files.read()
    with console.progress("Judging") as progress:
        finished = judge_answers(
            first,
            second,
            service,
            seed=seed,
            files=ResultFiles(folder=output, name="judge"),
            command=command_line(),
            on_progress=progress,
        )
    return shown(finished)
