"""`icae store search`: passages by their words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli import console
from icae.cli.options import AsJson
from icae.cli.outcome import Outcome, reported
from icae.cli.store_options import StorePath, hit_payload

if TYPE_CHECKING:
    from icae.store import SearchHit


@reported
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words to look for.")],
    store: StorePath,
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="Most passages to show.")
    ] = 10,
    as_json: AsJson = False,
) -> Outcome:
    """Find the passages of a store that have the words, the best first."""
    from icae.store import open_store

    with open_store(store) as opened:
        hits = opened.search(query, limit=limit)
    payload = {"store": store, "query": query, "hits": [hit_payload(hit) for hit in hits]}
    return Outcome(payload=payload, show=lambda: _show(hits))


def _show(hits: list[SearchHit]) -> None:
    """Print two lines for each passage: where it is, and some of it."""
    for hit in hits:
        place = f"{hit.document} [{hit.char_start}:{hit.char_end}]"
        console.write_text(f"{place}  score {hit.score:.2f}\n    {hit.snippet}\n")
    if not hits:
        console.note("Nothing was found.")
