"""Contexts and replies made by hand, and a writer that is asked nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from icae.data.triplets.records import Context, Reply, TripletConfig
from icae.data.triplets.requests import Request, pairs_request

TEXT = (
    "Ada Lovelace was born in London in 1815. She worked with Charles Babbage on his engine. "
    "Her notes of 1843 describe how the engine would compute Bernoulli numbers."
)


@pytest.fixture
def make_context() -> Callable[..., Context]:
    def make(text: str = TEXT, *, number: int = 1, **fields: Any) -> Context:
        about = {"id": f"{number:032x}", "document": f"{number:032x}", "source": "notes"}
        return Context(**{**about, "text": text, "tokens": len(text.split()), **fields})

    return make


@pytest.fixture
def make_reply() -> Callable[..., Reply]:
    def make(text: str, *, request: str = "r", finish: Any = "stop") -> Reply:
        counts = {"prompt_tokens": 7, "completion_tokens": 3}
        return Reply(request=request, text=text, finish=finish, model="m", **counts)

    return make


@pytest.fixture
def make_config(tmp_path) -> Callable[..., TripletConfig]:
    """A build of a corpus of one file, three specific prompts and a general one a context."""

    def make(**settings: Any) -> TripletConfig:
        corpus = tmp_path / "corpus.txt"
        corpus.write_text("some text")
        return TripletConfig(
            **{"corpus": (str(corpus),), "specific": 3, "general": 1, "test_share": 0.2, **settings}
        )

    return make


@pytest.fixture
def make_requests(make_context, make_config) -> Callable[..., list[Request]]:
    """``make_requests(count)``: one request each for so many contexts, four pairs in a reply."""

    def make(count: int) -> list[Request]:
        sender: Any = SimpleNamespace(model="m", options={})
        contexts = [make_context(f"This is text {n}.", number=n) for n in range(count)]
        return [pairs_request(sender, context, make_config()) for context in contexts]

    return make
