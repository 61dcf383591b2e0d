"""The table of spans that `icae compress` and `icae inspect` print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from icae.cli.console import percent_text, preview, results

if TYPE_CHECKING:
    from icae.memory import MemorySpan

MOST_ROWS = 20
FEWEST_ROWS = 10
MARKED = 3


def weakest_spans(spans: Sequence[MemorySpan], count: int) -> list[int]:
    """Indices of the spans that the decoder reproduces worst.

    Args:
        spans: Spans of a memory.
        count: Most indices to return.

    Returns:
        Indices of measured spans, lowest fidelity first; ties in order of the text.
    """
    measured = [(s.fidelity, i) for i, s in enumerate(spans) if s.fidelity is not None]
    return [index for _, index in sorted(measured)[:count]]


def marked_spans(spans: Sequence[MemorySpan]) -> list[int]:
    """Indices of the weakest spans that are below the best one, at most three."""
    best = max((s.fidelity for s in spans if s.fidelity is not None), default=None)
    return [i for i in weakest_spans(spans, MARKED) if spans[i].fidelity != best]


def exact_text(spans: Sequence[MemorySpan]) -> str | None:
    """How many spans are known to come back exactly, for people; None if none was tried."""
    written = sum(span.written_back is True for span in spans)
    verbatim = sum(span.kind == "tokens" for span in spans)
    if not any(span.written_back is not None for span in spans) and not verbatim:
        return None
    return (
        f"{written + verbatim} of {len(spans)} spans "
        f"({written} written back freely without an error, {verbatim} verbatim)"
    )


def span_payload(index: int, span: MemorySpan) -> dict[str, Any]:
    """One span as ``--json`` prints it."""
    return {
        "index": index,
        "kind": span.kind,
        "tokens": span.tokens,
        "slots": span.slots,
        "positions": span.positions,
        "ratio": span.ratio,
        "char_start": span.char_start,
        "char_end": span.char_end,
        "fidelity": span.fidelity,
        "refine_steps": span.refine_steps,
        "refine_seconds": span.refine_seconds,
        "written_back": span.written_back,
    }


def print_spans(
    spans: Sequence[MemorySpan], text_of: Callable[[int], str | None], mean: float | None
) -> None:
    """Print spans with their fidelity on standard output; of many, only the weakest.

    Args:
        spans: Spans of a memory.
        text_of: The source text of a span, or None if it was not kept.
        mean: Fidelity over all spans, or None if it was not measured.
    """
    shown, heading = _rows(spans)
    out = results()
    out.print()
    if heading is not None:
        out.print(heading if mean is None else f"{heading} (mean {percent_text(mean)})")
    out.print(_table(spans, shown, text_of))


def _table(
    spans: Sequence[MemorySpan], shown: Sequence[int], text_of: Callable[[int], str | None]
) -> Table:
    marked = set(marked_spans(spans))
    table = Table(box=None, pad_edge=False, expand=True)
    for heading in ("span", "tokens", "held as", "characters"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("fidelity", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("first words", no_wrap=True, overflow="ellipsis", ratio=1)
    for index in shown:
        span = spans[index]
        text = text_of(index)
        table.add_row(
            str(index),
            str(span.tokens),
            f"{span.slots} slots" if span.kind == "slots" else "verbatim",
            f"{span.char_start}-{span.char_end}",
            percent_text(span.fidelity),
            "weak" if index in marked else _written_back_text(span),
            "" if text is None else preview(text),
            style="yellow" if index in marked else None,
        )
    return table


def _written_back_text(span: MemorySpan) -> str:
    """What is known of writing the span back freely: nothing, exact, or drifts."""
    if span.is_exact:
        return "exact"
    return "drifts" if span.written_back is False else ""


def _rows(spans: Sequence[MemorySpan]) -> tuple[list[int], str | None]:
    """Which spans to show, and a heading where that is not all of them."""
    if len(spans) <= MOST_ROWS:
        return list(range(len(spans))), None
    weakest = weakest_spans(spans, FEWEST_ROWS)
    if not weakest:
        return list(range(FEWEST_ROWS)), f"The first {FEWEST_ROWS} of {len(spans)} spans"
    return weakest, f"The {len(weakest)} weakest of {len(spans)} spans"
