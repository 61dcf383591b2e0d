"""What a writer is asked, each reply paid for once.

A request is named by the hash of all that is sent: the same name is the same question to the
same model, so a reply in the journal answers it for good, whatever else of a build changes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from icae.data.triplets.answers import read_answer, read_pairs
from icae.data.triplets.journal import Journal, Replies
from icae.data.triplets.prompts import Prompt, Task, prompt_book
from icae.data.triplets.records import Context, Pair, Reply, TripletConfig
from icae.data.triplets.self_supervised import context_generator
from icae.data.triplets.sentences import NAME

Message = Mapping[str, str]
"""One message of a chat: ``role`` and ``content``."""

Failures = dict[str, str]
"""Request id -> why it got no reply in this run; the next run asks again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One question to a writer.

    Attributes:
        id: Hash of everything that is sent, 32 hex digits.
        context: The text that it is about.
        messages: What is sent.
        prompts: The prompts to answer; a service makes up others besides.
        read: Finds the pairs in a reply.
    """

    id: str
    context: Context
    messages: tuple[Message, ...]
    prompts: tuple[Prompt, ...]
    read: Callable[[Reply], Iterable[Pair]]

    def pairs(self, replies: Replies) -> list[Pair]:
        """What its replies hold, up to the first one with a pair that can be used."""
        found: list[Pair] = []
        for reply in replies.get(self.id, ()):
            found += self.read(reply)
            if not all(pair.flaw for pair in found):
                break
        return found

    def is_open(self, replies: Replies, *, asks: int) -> bool:
        """Whether it needs a reply: none can be used, and fewer than `asks` were paid for."""
        paid = len(replies.get(self.id, ()))
        return paid < asks and all(pair.flaw for pair in self.pairs(replies))


class Writer(Protocol):
    """Writes replies: a service behind a URL, or the frozen decoder.

    Attributes:
        model: Name of the model.
        service: Where it runs, for the data sheet.
        options: Sampling options, as plain values.
        asks: Most replies to one request until one can be used.
    """

    model: str
    service: str
    options: Mapping[str, object]
    asks: int

    def requests(self, context: Context, config: TripletConfig) -> Sequence[Request]:
        """What to ask about a context."""
        ...

    def write(self, requests: Sequence[Request], record: Callable[[Reply], None]) -> Failures:
        """Write a reply to each request, in any order; returns those that were given up.

        ``record`` takes each reply as soon as it is there; when it returns, the reply is on
        disk. Several threads may call it at once.

        Raises:
            IcaeError: If no request can be answered; what was recorded stays.
        """
        ...


def pairs_request(writer: Writer, context: Context, config: TripletConfig) -> Request:
    """All pairs of a context in one reply, as JSON: for a service.

    It makes up ``config.specific`` prompts, and answers them and the general ones.
    """
    book, specific = prompt_book(), config.specific
    general = choose_general(context, book.general, count=config.general, seed=config.seed)
    orders, shapes = [], []
    if specific:
        instructions = (specific + 1) // 2
        questions = specific - instructions
        orders.append(
            book.service["specific"].format(
                count=specific, instructions=instructions, questions=questions
            )
        )
        shapes.append('"specific": [{"prompt": "...", "answer": "..."}, ...]')
    if general:
        listed = "\n".join(f"{i}. {one.text}" for i, one in enumerate(general, start=1))
        orders.append(book.service["general"].format(prompts=listed))
        shapes.append('"general": [{"number": 1, "answer": "..."}, ...]')
    orders.append(book.service["shape"].format(shape="{" + ", ".join(shapes) + "}"))
    content = "\n\n".join([f"<text>\n{context.text}\n</text>", *orders])
    system = {"role": "system", "content": book.service["system"]}
    messages = (system, {"role": "user", "content": content})
    return Request(
        id=_request_id(writer, messages),
        context=context,
        messages=messages,
        prompts=general,
        read=partial(read_pairs, context=context, specific=specific, general=general),
    )


def answer_requests(writer: Writer, context: Context, config: TripletConfig) -> list[Request]:
    """One request for each prompt, answered with plain text: for the frozen decoder.

    A small decoder does not make up good prompts. Its specific ones name somebody or
    something that occurs in the text.
    """
    tasks = prompt_book().decoder
    about = about_prompts(context, count=config.specific, seed=config.seed)
    general = choose_general(context, tasks, count=config.general, seed=config.seed)
    requests = []
    for prompt in (*about, *general):
        # The form in which `icae.engine.Engine.ask_text` reads a full context.
        messages = ({"role": "user", "content": f"{context.text}\n\n{prompt.text}"},)
        requests.append(
            Request(
                id=_request_id(writer, messages),
                context=context,
                messages=messages,
                prompts=(prompt,),
                read=partial(read_answer, context=context, prompt=prompt),
            )
        )
    return requests


def choose_general(
    context: Context, tasks: Sequence[Task], *, count: int, seed: int
) -> tuple[Prompt, ...]:
    """Choose general prompts for a context, at most one of each task."""
    random = context_generator(context, seed=seed, purpose="general")
    return tuple(tasks[i].worded(random) for i in random.permutation(len(tasks))[:count])


def about_prompts(context: Context, *, count: int, seed: int) -> tuple[Prompt, ...]:
    """Prompts for a model to answer, each about another name that occurs in the text."""
    random = context_generator(context, seed=seed, purpose="about")
    names = list(dict.fromkeys(re.findall(NAME, context.text)))
    about = prompt_book().about
    return tuple(about.worded(random, names[i]) for i in random.permutation(len(names))[:count])


def _request_id(writer: Writer, messages: Sequence[Message]) -> str:
    content = [writer.model, dict(writer.options), [[m["role"], m["content"]] for m in messages]]
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def ask_all(
    requests: Sequence[Request],
    writer: Writer,
    journal: Journal,
    on_progress: Callable[[int, int], None],
) -> Failures:
    """Have every request answered that the journal does not answer yet.

    One without a usable reply is asked again. `on_progress` is called with (answered requests,
    all requests).

    Raises:
        IcaeError: If the writer can answer no request; the journal keeps what came before.
    """
    failures: Failures = {}
    for _ in range(writer.asks):
        to_do = [
            one
            for one in requests
            if one.id not in failures and one.is_open(journal.replies, asks=writer.asks)
        ]
        if not to_do:
            break
        done = itertools.count(len(requests) - len(to_do) + 1)
        on_progress(len(requests) - len(to_do), len(requests))

        def record(reply: Reply, done: Iterator[int] = done) -> None:
            journal.append(reply)
            on_progress(next(done), len(requests))

        failures |= writer.write(to_do, record)
    return failures
