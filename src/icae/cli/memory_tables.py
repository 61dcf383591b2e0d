"""What commands print about a memory, and its spans and figures as `--json` gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from icae.cli import console
from icae.cli.command import Outcome

if TYPE_CHECKING:
    from icae.memory import Memory, MemoryHeader, Span
    from icae.memory.locked_file import LockedFile

MOST_ROWS = 20
FEWEST_ROWS = 10
MARKED = 3

SPAN_FIELDS = (
    *("kind", "tokens", "slots", "positions", "ratio", "char_start", "char_end"),
    *("fidelity", "recall", "refine_steps", "refine_seconds", "written_back"),
)


def weakest_spans(spans: Sequence[Span], count: int) -> list[int]:
    """Indices of the measured spans of lowest fidelity, the lowest first; ties in order."""
    measured = [(s.fidelity, i) for i, s in enumerate(spans) if s.fidelity is not None]
    return [index for _, index in sorted(measured)[:count]]


def marked_spans(spans: Sequence[Span]) -> list[int]:
    """Indices of the weakest spans that are below the best one, at most three."""
    best = max((s.fidelity for s in spans if s.fidelity is not None), default=None)
    return [i for i in weakest_spans(spans, MARKED) if spans[i].fidelity != best]


def span_payload(index: int, span: Span) -> dict[str, Any]:
    """One span as ``--json`` prints it."""
    return {"index": index, **{name: getattr(span, name) for name in SPAN_FIELDS}}


def memory_payload(memory: Memory | MemoryHeader) -> dict[str, Any]:
    """What a memory takes in the decoder and how faithful it is, as ``--json`` prints it."""
    return {
        "tokens": memory.tokens,
        "slots": memory.slot_count,
        "verbatim_tokens": memory.verbatim_tokens,
        "positions": memory.positions,
        "ratio": memory.ratio,
        "fidelity": memory.fidelity,
        "recall": memory.recall,
    }


def memory_figures(memory: Memory | MemoryHeader) -> dict[str, str]:
    """The same for people."""
    verbatim = f" + {memory.verbatim_tokens} verbatim tokens" if memory.verbatim_tokens else ""
    fidelity = "not measured" if memory.fidelity is None else console.percent_text(memory.fidelity)
    figures = {
        "tokens": f"{memory.tokens} in {console.count_text(len(memory.spans), 'span')}",
        "positions": f"{memory.slot_count} slots{verbatim} ({memory.ratio:.2f} tokens each)",
        "fidelity": fidelity,
        "recall": console.percent_text(memory.recall),
        "exact": _exact_text(memory.spans),
    }
    if memory.recall is None:
        del figures["recall"]
    return figures


def _exact_text(spans: Sequence[Span]) -> str:
    """How many spans are known to come back exactly."""
    written = sum(span.written_back is True for span in spans)
    verbatim = sum(span.kind == "tokens" for span in spans)
    if not any(span.written_back is not None for span in spans) and not verbatim:
        return "not tried"
    return (
        f"{written + verbatim} of {len(spans)} spans "
        f"({written} written back freely without an error, {verbatim} verbatim)"
    )


def saved(memory: Memory, target: LockedFile, **more: int | float | None) -> Outcome:
    """Write a memory, completely or not at all, and say what it holds.

    ``more`` goes into the ``--json`` object; ``seconds`` with ``refined_spans`` or
    ``encoded_spans`` is said to people, too.
    """
    target.save(memory)
    names = [document.name for document in memory.documents]
    size = target.path.stat().st_size
    payload = {
        "output": str(target.path),
        "documents": names,
        "spans": len(memory.spans),
        **memory_payload(memory),
        "file_bytes": size,
        **more,
    }
    figures = {
        "memory": f"{target.path} ({console.size_text(size)})",
        "documents": ", ".join(console.preview(name) for name in names),
        **memory_figures(memory),
    }
    if "refined_spans" not in more:
        del figures["exact"]
    for what in ("refined", "encoded"):
        count = more.get(f"{what}_spans")
        if count is not None:
            figures[what] = f"{console.count_text(int(count), 'span')} in {more['seconds']:.1f} s"
    return Outcome(payload=payload, show=lambda: console.print_figures(figures))


def print_spans(
    spans: Sequence[Span], text_of: Callable[[int], str | None], mean: float | None
) -> None:
    """Print spans with their fidelity (and its mean, if measured); of many, only the weakest."""
    if len(spans) <= MOST_ROWS:
        shown, heading = list(range(len(spans))), None
    elif weakest := weakest_spans(spans, FEWEST_ROWS):
        shown, heading = weakest, f"The {len(weakest)} of {len(spans)} spans of lowest fidelity"
    else:
        shown = list(range(FEWEST_ROWS))
        heading = f"The first {FEWEST_ROWS} of {len(spans)} spans"
    marked = marked_spans(spans)
    asked = any(span.recall is not None for span in spans)
    right = ("span", "tokens", "held as", "characters", "fidelity", *(["recall"] * asked))
    rows = console.table(*right, "", right=right)
    rows.expand = True
    rows.add_column("first words", no_wrap=True, overflow="ellipsis", ratio=1)
    for index in shown:
        span, text = spans[index], text_of(index)
        drifts = "drifts" if span.written_back is False else ""
        rows.add_row(
            str(index),
            str(span.tokens),
            f"{span.slots} slots" if span.kind != "tokens" else "verbatim",
            f"{span.char_start}-{span.char_end}",
            console.percent_text(span.fidelity),
            *([console.percent_text(span.recall)] * asked),
            "lowest" if index in marked else "exact" if span.is_exact else drifts,
            "" if text is None else console.preview(text),
            style="yellow" if index in marked else None,
        )
    out = console.results()
    out.print()
    if heading is not None:
        out.print(heading if mean is None else f"{heading} (mean {console.percent_text(mean)})")
    out.print(rows)
