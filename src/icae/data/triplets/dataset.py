"""A triplet build from start to end: ask what is open, put together, write.

Nobody is asked twice: every reply is in the journal (`icae.data.triplets.journal`), and the
data set is made anew from all that it holds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from icae.data.rows import table_bytes, write_whole
from icae.data.triplets.answers import word_overlap
from icae.data.triplets.journal import Replies, open_journal
from icae.data.triplets.prompts import prompt_book
from icae.data.triplets.records import Context, Pair, TripletConfig
from icae.data.triplets.requests import Failures, Request, Writer, ask_all
from icae.data.triplets.self_supervised import corpus_pairs
from icae.data.words import Hashes, hash_words, uniform
from icae.errors import InputError

Side = Literal["train", "test"]
Row = dict[str, str]
"""One line of the data set; see docs/pwc.md."""

SIDES: tuple[Side, ...] = ("train", "test")
SAME_PROMPT = 0.8
"""Share of words in common from which on two prompts ask for the same thing."""

REJECTED, JOURNAL, DATASHEET = ".rejected.jsonl", ".journal.jsonl", ".datasheet.md"
"""Endings of the files that lie beside the training triplets."""


def beside(train: Path, ending: str) -> Path:
    """A further file of the build whose training triplets go to a file: `REJECTED` and so on.

    Raises:
        InputError: If the training triplets are no .jsonl or .parquet file.
    """
    if train.suffix not in (".jsonl", ".parquet"):
        raise InputError(
            "That type of file cannot be written.",
            got=str(train),
            expected="a name that ends in .jsonl or .parquet",
        )
    return train.with_name(train.stem + ending)


def triplet_files(train: Path) -> dict[Side, Path]:
    """The files of both sides, named by that of the training triplets; raises as `beside`."""
    return {"train": train, "test": beside(train, f".test{train.suffix}")}


@dataclass(frozen=True, kw_only=True)
class TripletBuild:
    """What came out of a build.

    Attributes:
        sides: Side -> its triplets, in the order of the contexts.
        rejected: What was written and is not used: reason, context (its id), task, prompt, answer.
        unanswered: Requests without a reply that can be used.
        failures: Requests that got no reply in this run, and why.
        usage: Replies and the tokens that they took, rejected ones and earlier runs included.
    """

    sides: Mapping[Side, Sequence[Row]]
    rejected: Sequence[Row]
    unanswered: int
    failures: Failures
    usage: Mapping[str, int]

    @property
    def contexts(self) -> dict[Side, int]:
        """Side -> contexts with at least one triplet."""
        return {side: len({row["context"] for row in rows}) for side, rows in self.sides.items()}

    @property
    def tasks(self) -> dict[str, dict[Side, int]]:
        """Task -> side -> triplets, by name of the task."""
        counts = {side: Counter(row["task"] for row in self.sides[side]) for side in SIDES}
        names = sorted(set().union(*counts.values()))
        return {name: {side: counts[side][name] for side in SIDES} for name in names}

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> rejections, most frequent first."""
        return dict(Counter(row["reason"] for row in self.rejected).most_common())


def plan_requests(
    contexts: Iterable[Context], config: TripletConfig, writer: Writer | None
) -> list[Request]:
    """What a writer has to be asked about the contexts of a build."""
    return [one for context in contexts if writer for one in writer.requests(context, config)]


def build_triplets(
    contexts: Sequence[Context],
    config: TripletConfig,
    writer: Writer | None,
    train: Path,
    *,
    on_progress: Callable[[int, int], None],
) -> TripletBuild:
    """Ask what is open, then write triplets and rejections from all that the journal holds.

    Without a writer there are self-supervised prompts alone. The training triplets go to the
    file ``train``, the rest beside it; a side without triplets has no file. ``on_progress`` is
    called with (answered requests, all requests).

    Raises:
        ServiceError: If the service cannot be used; what came before is in the journal.
        InputError: If no triplet came out, or a file cannot be read or written.
        MissingDependencyError: If Parquet is wanted and pyarrow is not installed.
    """
    requests = plan_requests(contexts, config, writer)
    failures: Failures = {}
    replies: Replies = {}
    if writer is not None and requests:
        with open_journal(beside(train, JOURNAL)) as journal:
            failures = ask_all(requests, writer, journal, on_progress)
            replies = journal.replies
    model = writer.model if writer is not None else ""
    made = _put_together(contexts, requests, replies, config, model=model, failures=failures)
    if not any(made.sides.values()):
        raise InputError(
            "Not one triplet came out.",
            got=f"{len(contexts)} contexts, rejected: {made.reasons or 'nothing'}",
            fix="look at the corpus, the lengths asked for, and the replies in the journal",
        )
    to_bytes = table_bytes if train.suffix == ".parquet" else _json_lines
    for side, path in triplet_files(train).items():
        if made.sides[side]:
            write_whole(path, to_bytes(made.sides[side]))
        else:
            path.unlink(missing_ok=True)
    write_whole(beside(train, REJECTED), _json_lines(made.rejected))
    return made


def _put_together(
    contexts: Sequence[Context],
    requests: Sequence[Request],
    replies: Replies,
    config: TripletConfig,
    *,
    model: str,
    failures: Failures,
) -> TripletBuild:
    """The triplets of all replies and of the corpus, and what is rejected."""
    written: dict[str, list[Pair]] = {context.id: [] for context in contexts}
    unanswered = 0
    for request in requests:
        pairs = request.pairs(replies)
        unanswered += all(pair.flaw for pair in pairs)
        written[request.context.id] += pairs
    made_by = dict.fromkeys([task.name for task in prompt_book().corpus], "corpus")
    sides: dict[Side, list[Row]] = {"train": [], "test": []}
    rejected: list[Row] = []
    for context in contexts:
        side = side_of(context, test_share=config.test_share, seed=config.seed)
        number = 0
        written[context.id] += corpus_pairs(
            context, count=config.from_corpus, seed=config.seed, tasks=config.corpus_tasks
        )
        for pair in without_repeats(written[context.id]):
            if pair.flaw:
                about = {"task": pair.task, "prompt": pair.prompt, "answer": pair.answer}
                rejected.append({"reason": pair.flaw, "context": context.id, **about})
                continue
            writer = made_by.get(pair.task, model)
            sides[side].append(_row(context, pair, number=number, model=writer))
            number += 1
    used = [reply for request in requests for reply in replies.get(request.id, ())]
    return TripletBuild(
        sides=sides,
        rejected=rejected,
        unanswered=unanswered,
        failures=failures,
        usage={
            "replies": len(used),
            "prompt_tokens": sum(reply.prompt_tokens for reply in used),
            "completion_tokens": sum(reply.completion_tokens for reply in used),
        },
    )


def _row(context: Context, pair: Pair, *, number: int, model: str) -> Row:
    return {
        "context": context.text,
        "prompt": pair.prompt,
        "answer": pair.answer,
        "dataset": "pwc",
        "id": f"{context.id}-{number}",
        "task": pair.task,
        "source": context.source,
        "title": context.title or "",
        "model": model,
    }


def without_repeats(pairs: Iterable[Pair]) -> list[Pair]:
    """Mark pairs of one context whose prompt was asked before: of such the first is kept.

    The flaw is ``exact`` for a prompt in the same words (case and punctuation do not count),
    ``near`` for one that shares `SAME_PROMPT` of its words with another.
    """
    known: list[Hashes] = []
    marked = []
    for pair in pairs:
        words = hash_words(pair.prompt)
        if pair.flaw is None:
            if any(np.array_equal(words, other) for other in known):
                pair = replace(pair, flaw="exact")
            elif any(word_overlap(words, other) >= SAME_PROMPT for other in known):
                pair = replace(pair, flaw="near")
            else:
                known.append(words)
        marked.append(pair)
    return marked


def side_of(context: Context, *, test_share: float, seed: int) -> Side:
    """The side of a context: that of the document that it was cut from."""
    key = np.frombuffer(bytes.fromhex(context.document), dtype="<u8").astype(np.uint64)
    number = uniform(key[None], seed=seed, purpose="pwc-test")[0]
    return "test" if number < test_share else "train"


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """JSON lines; a lone surrogate, which UTF-8 cannot hold, becomes its JSON escape."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace")
