"""`icae pwc build`: Prompt-with-Context triplets from a corpus and a language model."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.memories import check_output
from icae.cli.options import BaseOptions, Force, split_names
from icae.errors import InputError

if TYPE_CHECKING:
    from icae.data.triplets.contexts import ContextSample
    from icae.data.triplets.dataset import Side, TripletBuild
    from icae.data.triplets.records import TripletConfig
    from icae.data.triplets.requests import Writer

SELF, NONE = "self", "none"
_DROPPED = {
    "few_tokens": "shorter or longer than --tokens",
    "contaminated": "in a set of --against",
    "exact": "twice there",
    "near": "nearly twice there",
}
DEFAULT_BASE = "smollm2-135m-instruct"
DEFAULT_KEY = "OPENAI_API_KEY"


def _in(panel: str) -> Callable[..., Any]:
    def option(metavar: str | None = None, **settings: Any) -> Any:
        return typer.Option(metavar=metavar, rich_help_panel=panel, **settings)

    return option


_contexts, _answers = _in("Contexts"), _in("Prompts and answers")
_service = _in("Service behind a URL")


@dataclass(frozen=True, kw_only=True)
class ContextOptions:
    """Which contexts are cut from the corpus.

    Attributes:
        contexts: Contexts.
        tokens: Shortest and longest context in tokens.
        per_document: Most contexts of one document.
        against: Evaluation set; no context shares a run of words with it. May be given
            several times.
        test_share: Share of the documents that go to the test file.
        seed: Seed of every choice.
    """

    contexts: Annotated[int, _contexts("N", min=1)] = 1000
    tokens: Annotated[str, _contexts("MIN-MAX")] = "64-512"
    per_document: Annotated[int, _contexts("N", min=1)] = 4
    against: Annotated[list[str] | None, _contexts("PATH", show_default="none")] = None
    test_share: Annotated[float, _contexts("X", min=0.0, max=0.99)] = 0.05
    seed: Annotated[int, _contexts("N")] = 0


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How many prompts of which kind.

    Attributes:
        specific: Prompts for each context that fit it alone.
        general: General prompts for each context: title, summary, keywords and so on.
        from_corpus: Self-supervised prompts for each context, whose answers stand in the corpus.
        corpus_tasks: Which self-supervised prompts, for example corpus-name,corpus-year.
        max_reply_tokens: Longest reply.
    """

    specific: Annotated[int | None, _answers("N", min=0, show_default="10; with self 2")] = None
    general: Annotated[int | None, _answers("N", min=0, show_default="5; with self 3")] = None
    from_corpus: Annotated[int | None, _answers("N", min=0, show_default="0; with none 4")] = None
    corpus_tasks: Annotated[str | None, _answers("T,T,...", show_default="all")] = None
    max_reply_tokens: Annotated[
        int | None, _answers("N", min=1, show_default="4096; with self 128")
    ] = None

    def counts(self, llm: str) -> tuple[int, int, int, int]:
        """The four numbers, with the usual ones of a writer in place of those not given."""
        usual = {SELF: (2, 3, 0, 128), NONE: (0, 0, 4, 1)}.get(llm, (10, 5, 0, 4096))
        given = (self.specific, self.general, self.from_corpus, self.max_reply_tokens)
        specific, general, from_corpus, reply = (
            default if value is None else value for value, default in zip(given, usual, strict=True)
        )
        if llm == NONE and (specific or general):
            raise typer.BadParameter(
                "Specific and general prompts need somebody who answers; with none there are "
                "only those of --from-corpus.",
                param_hint="--llm",
            )
        return specific, general, from_corpus, reply


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """How a service is asked.

    Attributes:
        asks: Replies to pay for until one can be used.
        api_key_env: Environment variable that holds the key.
        temperature: Sampling temperature.
        token_field: Field that limits the reply; newer OpenAI models want the longer name.
        concurrency: Requests in flight at once.
        timeout: Silence of the service after which an attempt has failed.
        attempts: Attempts for one request, with growing pauses.
    """

    asks: Annotated[int, _service("N", min=1)] = 3
    api_key_env: Annotated[str, _service("NAME")] = DEFAULT_KEY
    temperature: Annotated[float, _service("X", min=0.0, max=2.0)] = 0.7
    token_field: Annotated[Literal["max_tokens", "max_completion_tokens"], _service()] = (
        "max_tokens"
    )
    concurrency: Annotated[int, _service("N", min=1)] = 8
    timeout: Annotated[float, _service("SECONDS")] = 120.0
    attempts: Annotated[int, _service("N", min=1)] = 6

    def writer(self, url: str, model: str | None, *, max_tokens: int) -> Writer:
        """The service as a writer."""
        from icae.data.triplets.service import ChatService, ServiceWriter

        if model is None:
            raise typer.BadParameter("A service needs the name of a model.", param_hint="--model")
        key = os.environ.get(self.api_key_env, "")
        if not key and self.api_key_env != DEFAULT_KEY:
            raise InputError(
                "The key for the service is missing.",
                got=f"no environment variable {self.api_key_env}",
                fix=f"export {self.api_key_env}=..., or leave out --api-key-env for a service "
                "without keys",
            )
        limits = asdict(self)
        del limits["api_key_env"], limits["asks"]
        chat = ChatService(url=url, model=model, api_key=key, max_tokens=max_tokens, **limits)
        return ServiceWriter(chat, asks=self.asks)


@command
def build(
    *,
    corpus: Annotated[list[str], typer.Option(metavar="PATH")],
    llm: Annotated[str, typer.Option(metavar="URL|self|none")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE")],
    model: Annotated[str | None, typer.Option(metavar="NAME", show_default="none")] = None,
    contexts: ContextOptions,
    answers: AnswerOptions,
    service: ServiceOptions,
    decoder: BaseOptions,
    force: Force = False,
) -> Outcome:
    """Make (context, prompt, answer) triplets; run it again to go on after a stop.

    Args:
        corpus: Corpus file or folder; may be given several times.
        llm: Who writes the answers: an OpenAI-compatible service, for example
            http://127.0.0.1:8000/v1; self: the frozen decoder with the full context; none:
            nobody, only self-supervised prompts.
        output: Training triplets, .jsonl or .parquet; the other files lie beside it.
        model: Model of the service.
    """
    from icae.data.triplets.contexts import sample_contexts
    from icae.data.triplets.dataset import JOURNAL, beside
    from icae.model.base import load_tokenizer

    *prompts, reply_tokens = answers.counts(llm)
    if llm in (SELF, NONE) and model:
        raise typer.BadParameter("it is for a service behind a URL.", param_hint="--model")
    config = _config(corpus, contexts, prompts, answers.corpus_tasks)
    writer: Writer | None = None
    if llm not in (SELF, NONE):
        writer = service.writer(llm, model, max_tokens=reply_tokens)
    begun = beside(output, JOURNAL).exists()  # then what is there is of a build
    check_output(output, force=force or begun)
    tokenizer = load_tokenizer(decoder.base or DEFAULT_BASE)
    with console.status("Reading the corpus and choosing contexts"):
        sample = sample_contexts(config, tokenizer)
    _tell_sample(sample, config)
    if llm == SELF:
        from icae.cli.decoder_writer import DecoderWriter

        with console.status("Loading the model"):
            writer = DecoderWriter.load(
                decoder.base or DEFAULT_BASE,
                decoder.device,
                decoder.dtype,
                max_new_tokens=reply_tokens,
            )
    return _carried_out(sample, config, writer, output)


def _config(
    corpus: Sequence[str], contexts: ContextOptions, prompts: Sequence[int], tasks: str | None
) -> TripletConfig:
    from icae.data.triplets.records import TripletConfig

    specific, general, from_corpus = prompts
    given = asdict(contexts)
    shortest, longest = _numbers(given.pop("tokens"), "-", "--tokens", "64-512")
    return TripletConfig(
        corpus=tuple(corpus),
        min_tokens=int(shortest),
        max_tokens=int(longest),
        against=tuple(given.pop("against") or ()),
        corpus_tasks=split_names(tasks) if tasks else (),
        specific=specific,
        general=general,
        from_corpus=from_corpus,
        **given,
    )


def _numbers(text: str, separator: str, option: str, example: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(separator))
    except ValueError:
        message = f"{text!r} is not of the form {example}."
        raise typer.BadParameter(message, param_hint=option) from None
    return first, second


def _tell_sample(sample: ContextSample, config: TripletConfig) -> None:
    """Say why there are fewer contexts than asked for; refuse a build without any."""
    if not sample.contexts:
        raise InputError(
            "The corpus has no fitting context.",
            got=f"{sample.documents:,} documents, passages dropped: {dict(sample.dropped)}",
            fix="choose other lengths with --tokens, or another corpus",
        )
    if len(sample.contexts) < config.contexts:
        dropped = ", ".join(f"{_DROPPED.get(why, why)} {n:,}" for why, n in sample.dropped.items())
        console.note(
            f"{len(sample.contexts):,} of {config.contexts:,} contexts found in "
            f"{sample.documents:,} documents (passages left out: {dropped or 'none'}). For more: a "
            "larger corpus, a higher --per-document, or wider --tokens."
        )


def _carried_out(
    sample: ContextSample,
    config: TripletConfig,
    writer: Writer | None,
    output: Path,
) -> Outcome:
    from icae.config.checkout import commit
    from icae.data.rows import write_whole
    from icae.data.triplets.dataset import DATASHEET, beside, build_triplets, triplet_files
    from icae.data.triplets.datasheet import datasheet

    running = commit()  # before hours of asking, in which the checkout may change
    with console.progress("Asking") as on_progress:
        made = build_triplets(sample.contexts, config, writer, output, on_progress=on_progress)
    line = shlex.join(["icae", *sys.argv[1:]])
    sheet = datasheet(made, sample, config, writer, train=output, commit=running, command=line)
    write_whole(beside(output, DATASHEET), sheet)
    files = {side: str(path) for side, path in triplet_files(output).items() if made.sides[side]}
    chosen = len(sample.contexts)
    payload = {
        "output": files,
        "datasheet": str(beside(output, DATASHEET)),
        "triplets": {side: len(rows) for side, rows in made.sides.items()},
        "contexts": made.contexts,
        "contexts_without_triplet": chosen - sum(made.contexts.values()),
        "passages_left_out": sample.dropped,
        "tasks": made.tasks,
        "rejected": made.reasons,
        "unanswered": made.unanswered,
        "failed": [{"request": one, "reason": why} for one, why in made.failures.items()],
        **made.usage,
    }
    return Outcome(payload=payload, show=lambda: _show(made, output, files, chosen))


def _show(made: TripletBuild, output: Path, files: Mapping[Side, str], chosen: int) -> None:
    from icae.data.triplets.dataset import REJECTED, beside

    table = console.table_with_totals(
        {"task": "all", **{side: f"{len(rows):,}" for side, rows in made.sides.items()}}
    )
    for task, counts in made.tasks.items():
        table.add_row(task, *(f"{counts[side]:,}" for side in made.sides))
    console.results().print(table)
    for side, file in files.items():
        told = f"{len(made.sides[side]):,} triplets on {made.contexts[side]:,} contexts in {file}"
        console.results().print(told, soft_wrap=True)
    without = chosen - sum(made.contexts.values())
    if without:
        console.note(
            f"{without:,} of {chosen:,} contexts gave no triplet: what was written about them was "
            "rejected, or (with --from-corpus) they have nothing to ask for, such as whole "
            "sentences of 7 to 40 words, names, years, a heading."
        )
    if made.reasons:
        listed = ", ".join(f"{reason} {count:,}" for reason, count in made.reasons.items())
        console.note(f"Rejected: {listed}; see {beside(output, REJECTED)}.")
    if made.failures:
        console.note(
            f"{len(made.failures):,} requests got no reply (the last: "
            f"{list(made.failures.values())[-1]}). The same command asks again for these only."
        )
