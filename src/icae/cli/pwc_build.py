"""`icae pwc build`: Prompt-with-Context triplets from a corpus and a language model."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from icae.cli import console, engine
from icae.cli import pwc_options as opt
from icae.cli.names import split_names
from icae.cli.options import AsJson, Base, Device, Dtype, Force
from icae.cli.outcome import Outcome, reported
from icae.cli.output_file import check_output
from icae.errors import InputError

if TYPE_CHECKING:
    from icae.data.pwc.contexts import ContextConfig, ContextSample
    from icae.data.pwc.estimate import Estimate, Price
    from icae.data.pwc.output import PwcFiles
    from icae.data.pwc.plan import PwcConfig
    from icae.pwc.build import Built, Job
    from icae.pwc.endpoint import Endpoint
    from icae.pwc.limits import Limits

SELF, NONE = "self", "none"
DEFAULT_BASE = "smollm2-135m-instruct"
DEFAULT_KEY = "OPENAI_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Prompts for each context, and tokens of the longest reply."""

    specific: int
    general: int
    from_corpus: int
    reply: int


SERVICE_COUNTS = Counts(specific=10, general=5, from_corpus=0, reply=4096)
OTHER_COUNTS = {
    SELF: Counts(specific=2, general=3, from_corpus=0, reply=128),
    NONE: Counts(specific=0, general=0, from_corpus=4, reply=1),
}


@reported
def build(
    corpus: opt.Corpus,
    llm: opt.Llm,
    output: opt.Output,
    model: opt.Model = None,
    contexts: opt.Contexts = 1000,
    tokens: opt.Tokens = "64-512",
    per_document: opt.PerDocument = 4,
    against: opt.Against = None,
    test_share: opt.TestShare = 0.05,
    seed: opt.Seed = 0,
    specific: opt.Specific = None,
    general: opt.General = None,
    from_corpus: opt.FromCorpus = None,
    corpus_tasks: opt.CorpusTasks = None,
    max_reply_tokens: opt.MaxReplyTokens = None,
    asks: opt.Asks = 3,
    api_key_env: opt.ApiKeyEnv = DEFAULT_KEY,
    temperature: opt.Temperature = 0.7,
    token_field: opt.TokenField = "max_tokens",
    concurrency: opt.Concurrency = 8,
    requests_per_minute: opt.RequestsPerMinute = None,
    tokens_per_minute: opt.TokensPerMinute = None,
    timeout: opt.Timeout = 120.0,
    attempts: opt.Attempts = 6,
    price: opt.PriceOption = None,
    dry_run: opt.DryRun = False,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Force = False,
    as_json: AsJson = False,
) -> Outcome:
    """Make (context, prompt, answer) triplets; run it again to go on after a stop."""
    counts = _counts(llm, specific, general, from_corpus, max_reply_tokens)
    contexts_config = _context_config(contexts, tokens, per_document)
    config = _config(corpus, against, contexts_config, counts, corpus_tasks, test_share, seed)
    limits = _limits(concurrency, requests_per_minute, tokens_per_minute, timeout, attempts)
    endpoint = _endpoint(llm, model, api_key_env, temperature, token_field, counts.reply)
    files, cost = _files(output, force=force or dry_run), _price(price)
    sample = _choose(config, base or DEFAULT_BASE)
    if endpoint is not None:
        job = _ask_service(sample, config, endpoint, limits, asks)
    else:
        job = (
            _ask_nobody()
            if llm == NONE
            else _ask_decoder(sample, config, counts, base, device, dtype)
        )
    if dry_run:
        return _estimated(job, files, base or DEFAULT_BASE, cost, sample)
    return _carried_out(job, sample, config, files, cost)


def _counts(llm: str, *given: int | None) -> Counts:
    usual = asdict(OTHER_COUNTS.get(llm, SERVICE_COUNTS))
    chosen = {
        name: value if value is not None else usual[name]
        for name, value in zip(usual, given, strict=True)
    }
    if llm == NONE and (chosen["specific"] or chosen["general"]):
        raise typer.BadParameter(
            "Specific and general prompts need somebody who answers; with none there are "
            "only those of --from-corpus.",
            param_hint="--llm",
        )
    return Counts(**chosen)


def _context_config(contexts: int, tokens: str, per_document: int) -> ContextConfig:
    from icae.data.pwc.contexts import ContextConfig

    shortest, longest = _numbers(tokens, "-", "--tokens", "64-512")
    return ContextConfig(
        count=contexts,
        min_tokens=int(shortest),
        max_tokens=int(longest),
        per_document=per_document,
    )


def _config(
    corpus: list[str],
    against: list[str] | None,
    contexts: ContextConfig,
    counts: Counts,
    corpus_tasks: str | None,
    test_share: float,
    seed: int,
) -> PwcConfig:
    from icae.data.contamination import ContaminationConfig
    from icae.data.pwc.plan import PwcConfig

    return PwcConfig(
        corpus=tuple(corpus),
        contexts=contexts,
        specific=counts.specific,
        general=counts.general,
        from_corpus=counts.from_corpus,
        corpus_tasks=split_names(corpus_tasks) if corpus_tasks else (),
        test_share=test_share,
        seed=seed,
        contamination=ContaminationConfig(against=tuple(against or ())),
    )


def _limits(
    concurrency: int,
    requests_per_minute: float | None,
    tokens_per_minute: float | None,
    timeout: float,
    attempts: int,
) -> Limits:
    from icae.pwc.limits import Limits

    return Limits(
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        timeout=timeout,
        attempts=attempts,
    )


def _endpoint(
    llm: str, model: str | None, key_name: str, temperature: float, token_field: Any, tokens: int
) -> Endpoint | None:
    """The service, or None if --llm names none."""
    if llm in OTHER_COUNTS:
        return None
    from icae.pwc.endpoint import Endpoint

    if model is None:
        raise typer.BadParameter("A service needs the name of a model.", param_hint="--model")
    key = os.environ.get(key_name, "")
    if not key and key_name != DEFAULT_KEY:
        raise InputError(
            "The key for the service is missing.",
            got=f"no environment variable {key_name}",
            fix=f"export {key_name}=..., or leave out --api-key-env for a service without keys",
        )
    return Endpoint(
        url=llm,
        model=model,
        api_key=key or "none",
        temperature=temperature,
        max_tokens=tokens,
        token_field=token_field,
    )


def _files(output: Any, *, force: bool) -> PwcFiles:
    from icae.data.pwc.output import PwcFiles

    files = PwcFiles(train=output)
    ours = files.journal.exists()
    check_output(output, if_exists="replace" if force or ours else "refuse")
    return files


def _price(text: str | None) -> Price | None:
    from icae.data.pwc.estimate import Price

    if text is None:
        return None
    prompt, completion = _numbers(text, ",", "--price", "0.15,0.60")
    return Price(prompt=prompt, completion=completion)


def _numbers(text: str, separator: str, option: str, example: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(separator))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not of the form {example}.", param_hint=option
        ) from None
    return first, second


def _choose(config: PwcConfig, base: str) -> ContextSample:
    from icae.data.pwc.plan import plan_contexts

    tokenizer, _ = engine.open_tokenizer(base)
    with console.status("Reading the corpus and choosing contexts"):
        sample = plan_contexts(config, tokenizer)
    missing = config.contexts.count - len(sample.contexts)
    if not sample.contexts:
        raise InputError(
            "The corpus has no fitting context.",
            got=f"{sample.documents:,} documents, passages dropped: {dict(sample.dropped)}",
            fix="choose other lengths with --tokens, or another corpus",
        )
    if missing > 0:
        console.note(
            f"{len(sample.contexts):,} of {config.contexts.count:,} contexts found; the corpus "
            "is too small for more (or raise --per-document, or widen --tokens)."
        )
    return sample


def _ask_service(
    sample: ContextSample, config: PwcConfig, endpoint: Endpoint, limits: Limits, asks: int
) -> Job[Any]:
    from icae.pwc.build import service_job

    return service_job(sample, config, endpoint, limits, asks=asks)


def _ask_nobody() -> Job[Any]:
    from icae.pwc.build import corpus_job

    return corpus_job()


def _ask_decoder(
    sample: ContextSample,
    config: PwcConfig,
    counts: Counts,
    base: str | None,
    device: str | None,
    dtype: str | None,
) -> Job[Any]:
    from icae.pwc.build import decoder_job

    icae = engine.open_engine(adapter=None, base=base, device=device, dtype=dtype)
    made = icae.provenance
    model = f"{made.base_model}@{made.base_hash[:12]}"
    return decoder_job(sample, config, icae, model=model, max_new_tokens=counts.reply)


def _estimated(
    job: Job[Any], files: PwcFiles, base: str, price: Price | None, sample: ContextSample
) -> Outcome:
    from icae.pwc.build import estimate_job

    tokenizer, _ = engine.open_tokenizer(base)
    found = estimate_job(job, files, tokenizer)
    cost = None
    if price is not None:
        cost = price.of(
            prompt_tokens=found.prompt_tokens, completion_tokens=found.completion_tokens
        )
    payload = {"contexts": len(sample.contexts), **asdict(found), "cost": cost}
    return Outcome(payload=payload, show=lambda: _show_estimate(found, len(job.requests), cost))


def _show_estimate(found: Estimate, requests: int, cost: float | None) -> None:
    console.print_figures(
        {
            "requests": f"{found.requests:,} to send of {requests:,}",
            "tokens read": f"about {found.prompt_tokens:,}",
            "tokens written": f"about {found.completion_tokens:,} "
            + (f"(from {found.from_replies:,} replies)" if found.from_replies else "(a guess)"),
            "cost": "unknown, see --price" if cost is None else f"about {cost:.2f}",
        }
    )


def _carried_out(
    job: Job[Any],
    sample: ContextSample,
    config: PwcConfig,
    files: PwcFiles,
    price: Price | None,
) -> Outcome:
    from icae.pwc.build import carry_out

    with console.progress("Asking") as on_progress:
        built = carry_out(
            job,
            sample,
            config,
            files,
            price=price,
            command=shlex.join(["icae", *sys.argv[1:]]),
            on_progress=on_progress,
        )
    return Outcome(payload=_payload(built, files), show=lambda: _show(built, files))


def _payload(built: Built, files: PwcFiles) -> dict[str, Any]:
    dataset = built.dataset
    return {
        "output": {side: str(files.of(side)) for side, rows in dataset.sides.items() if rows},
        "datasheet": str(files.datasheet),
        "triplets": {side: len(rows) for side, rows in dataset.sides.items()},
        "contexts": dict(dataset.contexts),
        "tasks": {task: dict(counts) for task, counts in dataset.tasks.items()},
        "rejected": dict(dataset.reasons),
        "unanswered": dataset.unanswered,
        "failed": [asdict(failure) for failure in built.failures],
        **asdict(built.usage),
    }


def _show(built: Built, files: PwcFiles) -> None:
    dataset = built.dataset
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("task", footer="all")
    for side, rows in dataset.sides.items():
        table.add_column(side, justify="right", footer=f"{len(rows):,}")
    for task, counts in dataset.tasks.items():
        table.add_row(task, *(f"{counts[side]:,}" for side in dataset.sides))
    console.results().print(table)
    for side, rows in dataset.sides.items():
        if rows:
            console.results().print(
                f"{len(rows):,} triplets on {dataset.contexts[side]:,} contexts in "
                f"{files.of(side)}",
                soft_wrap=True,
            )
    if dataset.reasons:
        listed = ", ".join(f"{reason} {count:,}" for reason, count in dataset.reasons.items())
        console.note(f"Rejected: {listed}; see {files.rejected}.")
    if built.failures:
        console.note(
            f"{len(built.failures):,} requests got no reply (the last: "
            f"{built.failures[-1].reason}). The same command asks again for these only."
        )
