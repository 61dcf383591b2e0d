"""The data set of a PWC build: replies and corpus to triplets, rejections and counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from icae.data.pwc.corpus_prompts import CORPUS_TASKS, corpus_pairs
from icae.data.pwc.plan import PwcConfig
from icae.data.pwc.records import Context, Rejection, Reply, Written
from icae.data.pwc.requests import Request
from icae.data.pwc.selection import Side, side_of, without_repeats

DATASET = "pwc"
FROM_CORPUS = "corpus"
"""The model named in triplets that no model wrote."""


@dataclass(frozen=True, kw_only=True)
class PwcTriplet:
    """One line of the data set; `icae.data.triplets` reads it.

    Attributes:
        context: The text to compress.
        prompt: What is asked about it.
        answer: The answer.
        dataset: Always ``pwc``.
        id: Id of the context and number of the pair.
        task: What kind of prompt it is.
        source: Name of the corpus.
        title: Title of the document, or empty.
        model: Who wrote the answer: a model, or ``corpus``.
    """

    context: str
    prompt: str
    answer: str
    dataset: str
    id: str
    task: str
    source: str
    title: str
    model: str


@dataclass(frozen=True, kw_only=True)
class PwcDataset:
    """Both sides of a finished build.

    Attributes:
        sides: Side -> its triplets, in the order of the contexts.
        rejections: What was written and is not used.
        contexts: Side -> contexts with at least one triplet.
        unanswered: Requests without a reply that can be used.
    """

    sides: Mapping[Side, tuple[PwcTriplet, ...]]
    rejections: tuple[Rejection, ...]
    contexts: Mapping[Side, int]
    unanswered: int

    @property
    def tasks(self) -> Mapping[str, Mapping[Side, int]]:
        """Task -> side -> triplets, by name of the task."""
        counts = {side: Counter(one.task for one in self.sides[side]) for side in self.sides}
        names = sorted({name for counter in counts.values() for name in counter})
        return {name: {side: counts[side][name] for side in self.sides} for name in names}

    @property
    def reasons(self) -> Mapping[str, int]:
        """Reason -> rejections, most frequent first."""
        return dict(Counter(one.reason for one in self.rejections).most_common())


def make_dataset(
    contexts: Sequence[Context],
    requests: Sequence[Request],
    replies: Mapping[str, Sequence[Reply]],
    config: PwcConfig,
    *,
    model: str,
) -> PwcDataset:
    """Read the replies and put the triplets together.

    Of several replies to one request the first with a usable pair counts; those before it
    are among the rejections.

    Args:
        contexts: The contexts.
        requests: All requests of the build.
        replies: Request id -> its replies.
        config: Self-supervised prompts, split and seed.
        model: Name of the model that wrote the replies.
    """
    written: dict[str, list[Written]] = defaultdict(list)
    unanswered = 0
    for request in requests:
        parts = list(_used(request, replies.get(request.id, ())))
        unanswered += not any(part.pairs for part in parts)
        written[request.context.id].extend(parts)
    sides: dict[Side, list[PwcTriplet]] = {"train": [], "test": []}
    counts: dict[Side, int] = {"train": 0, "test": 0}
    rejections: list[Rejection] = []
    for context in contexts:
        own = corpus_pairs(
            context, count=config.from_corpus, seed=config.seed, tasks=config.corpus_tasks
        )
        joined = without_repeats(context, [*written[context.id], own])
        side = side_of(context, test_share=config.test_share, seed=config.seed)
        sides[side].extend(_triplets(joined, model=model))
        counts[side] += bool(joined.pairs)
        rejections.extend(joined.rejections)
    return PwcDataset(
        sides={side: tuple(triplets) for side, triplets in sides.items()},
        rejections=tuple(rejections),
        contexts=counts,
        unanswered=unanswered,
    )


def _used(request: Request, replies: Sequence[Reply]) -> Iterator[Written]:
    """What the replies up to the first usable one say."""
    for reply in replies:
        part = request.read(reply)
        yield part
        if part.pairs:
            return


def _triplets(written: Written, *, model: str) -> Iterator[PwcTriplet]:
    context = written.context
    for number, pair in enumerate(written.pairs):
        yield PwcTriplet(
            context=context.text,
            prompt=pair.prompt,
            answer=pair.answer,
            dataset=DATASET,
            id=f"{context.id}-{number}",
            task=pair.task,
            source=context.source,
            title=context.title or "",
            model=FROM_CORPUS if pair.task in CORPUS_TASKS else model,
        )
