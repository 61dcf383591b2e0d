"""A PWC build from start to end: plan, ask, put together, write.

What is asked of whom is a `Job`. There are three: a service, the frozen decoder, or nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from icae.config.checkout import commit
from icae.data.pwc.contexts import ContextSample
from icae.data.pwc.dataset import PwcDataset, make_dataset
from icae.data.pwc.datasheet import Making, Origin, Usage, datasheet, kept_by_hand
from icae.data.pwc.estimate import Estimate, Price, estimate
from icae.data.pwc.journal import open_journal, read_journal
from icae.data.pwc.output import PwcFiles, write_text
from icae.data.pwc.plan import PwcConfig, answer_requests, pairs_requests
from icae.data.pwc.records import Reply
from icae.data.pwc.requests import (
    AnswerRequest,
    Failure,
    PairsRequest,
    Request,
    Sent,
    Writer,
    unanswered,
)
from icae.data.pwc.run import ask_all
from icae.data.shards import TokenizerLike
from icae.errors import InputError
from icae.pwc.decoder import DecoderWriter, FullContextReader
from icae.pwc.endpoint import Endpoint, EndpointWriter, public_url
from icae.pwc.limits import Limits

R = TypeVar("R", bound=Request)

FROM_CORPUS = Origin(model=None, service=None, options={})


@dataclass(frozen=True, kw_only=True)
class Job(Generic[R]):
    """What is asked, and who answers.

    Attributes:
        requests: Every request of the build.
        open_writer: Makes the writer; called only if there is something to ask.
        origin: Who writes, for the datasheet.
        asks: Most replies to one request until one can be used.
    """

    requests: tuple[R, ...]
    open_writer: Callable[[], Writer[R]]
    origin: Origin
    asks: int


def service_job(
    sample: ContextSample, config: PwcConfig, endpoint: Endpoint, limits: Limits, *, asks: int
) -> Job[PairsRequest]:
    """A service makes up prompts and answers all of a context in one reply.

    Args:
        sample: The contexts.
        config: The build.
        endpoint: The service.
        limits: Pace and patience.
        asks: Most replies to one request until one can be used.
    """
    sent = Sent(model=endpoint.model, options=endpoint.options)
    return Job(
        requests=pairs_requests(sample.contexts, config, sent=sent),
        open_writer=lambda: EndpointWriter(endpoint, limits),
        origin=Origin(
            model=endpoint.model, service=public_url(endpoint.url), options=endpoint.options
        ),
        asks=asks,
    )


def decoder_job(
    sample: ContextSample,
    config: PwcConfig,
    reader: FullContextReader,
    *,
    model: str,
    max_new_tokens: int,
) -> Job[AnswerRequest]:
    """The frozen decoder answers each prompt from the full context, greedily.

    Args:
        sample: The contexts.
        config: The build.
        reader: The engine.
        model: Name of the decoder and its hash.
        max_new_tokens: Most tokens of an answer.
    """
    options = {"decoding": "greedy", "max_new_tokens": max_new_tokens}
    return Job(
        requests=answer_requests(sample.contexts, config, sent=Sent(model=model, options=options)),
        open_writer=lambda: DecoderWriter(reader, model=model, max_new_tokens=max_new_tokens),
        origin=Origin(model=model, service="decoder", options=options),
        asks=1,
    )


def corpus_job() -> Job[Request]:
    """Nobody is asked: only self-supervised prompts."""

    def nobody() -> Writer[Request]:
        raise AssertionError("a job without requests has no writer")

    return Job(requests=(), open_writer=nobody, origin=FROM_CORPUS, asks=1)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished build.

    Attributes:
        dataset: What was written.
        failures: Requests that got no reply in this run.
        usage: Replies and tokens, those of earlier runs included.
    """

    dataset: PwcDataset
    failures: tuple[Failure, ...]
    usage: Usage


def estimate_job(job: Job[R], files: PwcFiles, tokenizer: TokenizerLike) -> Estimate:
    """What the open requests of a job will take; nothing is sent or written.

    Args:
        job: The job.
        files: Where its journal would be.
        tokenizer: Counts tokens.
    """
    replies = read_journal(files.journal)
    to_do = list(unanswered(job.requests, replies, asks=job.asks))
    return estimate(to_do, job.requests, replies, tokenizer)


def carry_out(
    job: Job[R],
    sample: ContextSample,
    config: PwcConfig,
    files: PwcFiles,
    *,
    price: Price | None,
    command: str,
    on_progress: Callable[[int, int], None],
) -> Built:
    """Ask what is open, then write the data set from all that the journal holds.

    Args:
        job: The job.
        sample: Its contexts.
        config: The build.
        files: Where everything is written.
        price: Price of the tokens, for the datasheet.
        command: The command line, for the datasheet.
        on_progress: Called with (answered requests, all requests).

    Raises:
        ServiceError: If the service cannot be used; what came before is in the journal.
        InputError: If no triplet came out, or a file cannot be read or written.
    """
    running = commit()  # before hours of asking, in which the checkout may change
    failures, replies = _ask(job, files, on_progress)
    dataset = make_dataset(
        sample.contexts, job.requests, replies, config, model=job.origin.model or ""
    )
    if not any(dataset.sides.values()):
        raise InputError(
            "Not one triplet came out.",
            got=f"{len(sample.contexts)} contexts, rejected: {dict(dataset.reasons) or 'nothing'}",
            fix="look at the corpus, the lengths asked for, and the replies in the journal",
        )
    usage = Usage.of(replies, [request.id for request in job.requests])
    files.save(dataset)
    old = files.datasheet.read_text(encoding="utf-8") if files.datasheet.exists() else ""
    sheet = datasheet(
        dataset,
        sample,
        config,
        origin=job.origin,
        making=Making(commit=running, command=command, usage=usage, price=price),
        by_hand=kept_by_hand(old),
    )
    write_text(files.datasheet, sheet)
    return Built(dataset=dataset, failures=tuple(failures), usage=usage)


def _ask(
    job: Job[R], files: PwcFiles, on_progress: Callable[[int, int], None]
) -> tuple[list[Failure], Mapping[str, list[Reply]]]:
    """Ask what is open; the failures of this run and all replies so far."""
    if not job.requests:
        return [], {}
    with open_journal(files.journal) as journal:
        failures: list[Failure] = []
        if next(unanswered(job.requests, journal.replies, asks=job.asks), None) is not None:
            writer = job.open_writer()
            failures = ask_all(
                job.requests, writer, journal, asks=job.asks, on_progress=on_progress
            )
        return failures, journal.replies
