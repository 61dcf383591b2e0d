from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from icae.data.pwc.plan import PwcConfig, pairs_requests
from icae.data.pwc.records import Context
from icae.data.pwc.requests import PairsRequest
from icae.pwc.endpoint import Endpoint, EndpointWriter
from icae.pwc.limits import Limits


@pytest.fixture
def make_requests() -> Callable[..., tuple[PairsRequest, ...]]:
    """``make_requests(count)``: one request each for so many contexts, four pairs in a reply."""

    def make(count: int, endpoint: Endpoint | None = None) -> tuple[PairsRequest, ...]:
        from icae.data.pwc.requests import Sent

        contexts = [
            Context(
                id=f"{n:032x}",
                document=f"{n:032x}",
                text=f"This is text {n}.",
                tokens=4,
                source="notes",
            )
            for n in range(count)
        ]
        config = PwcConfig(corpus=("x",), specific=3, general=1)
        return pairs_requests(contexts, config, sent=Sent(model="m", options={}))

    return make


@pytest.fixture
def make_writer() -> Callable[..., EndpointWriter]:
    """``make_writer(url, **limits)``: a writer that does not wait long."""

    def make(url: str, *, key: str = "secret", **limits: Any) -> EndpointWriter:
        quick = {"first_delay": 0.01, "timeout": 5.0, "concurrency": 4, **limits}
        return EndpointWriter(Endpoint(url=url, model="m", api_key=key), Limits(**quick))

    return make
