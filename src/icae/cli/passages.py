"""The weakest passages of a memory on the terminal, lost tokens marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from icae.cli import console
from icae.cli.span_table import weakest_spans

if TYPE_CHECKING:
    from icae.memory import Memory
    from icae.memory.shading import Stretch

LOST_STYLE = "bold red underline"


def weakest_passages(
    memory: Memory, places: Sequence[Sequence[int] | None], count: int
) -> list[dict[str, Any]]:
    """The spans that are held worst, with what is lost in them.

    Args:
        memory: A memory that keeps its text.
        places: For each document, where its tokens start, or None.
        count: Most spans.

    Returns:
        As ``--json`` prints them: span, fidelity, text, and ``lost``, the character ranges
        of lost tokens within the text (null where single tokens are not known).
    """
    from icae.memory.shading import shaded_spans

    chosen = [i for i in weakest_spans(memory.spans, count) if memory.spans[i].kind == "slots"]
    documents = {memory.spans[i].document for i in chosen}
    shaded: dict[int, list[Stretch]] = {}
    for document in documents:
        shaded.update(shaded_spans(memory, document, places[document]))
    passages = []
    for index in chosen:
        span = memory.spans[index]
        known = memory.token_fidelity is not None and places[span.document] is not None
        lost = [s for s in shaded[index] if s.lost]
        passages.append(
            {
                "span": index,
                "document": span.document,
                "fidelity": span.fidelity,
                "text": memory.span_source(index),
                "lost": [[s.start - span.char_start, s.end - span.char_start] for s in lost]
                if known
                else None,
            }
        )
    return passages


def print_passages(passages: Sequence[dict[str, Any]]) -> None:
    """Print passages on standard output.

    Lost tokens are red; where that cannot be shown, they stand between ⟦ and ⟧.

    Args:
        passages: From `weakest_passages`.
    """
    out = console.results()
    out.print()
    out.print("Weakest passages; lost tokens are marked:")
    for passage in passages:
        share = console.percent_text(passage["fidelity"])
        out.print()
        out.print(Text(f"span {passage['span']} ({share})", style="dim"))
        lost = passage["lost"] or []
        out.print(marked_text(passage["text"] or "", lost, colour=out.is_terminal))


def marked_text(text: str, lost: Sequence[Sequence[int]], *, colour: bool) -> Text:
    """A text with some ranges marked; neighbouring ranges are marked as one.

    Args:
        text: The text.
        lost: ``[start, end]`` of each range, in order.
        colour: Whether colours can be seen.
    """
    joined: list[list[int]] = []
    for start, end in lost:
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    before, after = ("", "") if colour else ("⟦", "⟧")
    marked, at = Text(), 0
    for start, end in joined:
        marked.append(console.printable(text[at:start]))
        marked.append(before + console.printable(text[start:end]) + after, style=LOST_STYLE)
        at = end
    marked.append(console.printable(text[at:]))
    return marked
