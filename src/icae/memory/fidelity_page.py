"""The text of a memory as one HTML page, shaded by how faithfully each token is held."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from icae.memory.critical_words import CriticalWord, critical_words, overlapping_word
from icae.memory.document import MemoryDocument
from icae.memory.html_page import escaped, html_page
from icae.memory.memory import Memory
from icae.memory.shading import Stretch, shaded_spans
from icae.memory.span import Span

_PART_STYLE = """\
color:#1b1b1f;background:#fff;padding:.5rem 1rem;
h2{font-size:1.1rem}
.text{max-height:24rem;overflow:auto}
"""
LEVELS = 10
"""Steps of the shading."""

_STYLE = """\
.text{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;border:1px solid #e4e4ea;
border-radius:6px;padding:1rem}
.s{border-left:2px solid #c9c9d4}
.v{background:#e3f1e5}.n{background:#eeeef2}
.l{color:#a40000;font-weight:600}
.u{text-decoration:underline wavy #a40000;text-underline-offset:3px}
.key span{padding:.1rem .4rem;margin-right:.6rem;border-radius:3px;white-space:nowrap}
"""


Offsets = Sequence[Sequence[int] | None]
"""As for `shaded_spans`, of each document."""


def fidelity_page(memory: Memory, offsets: Offsets, *, title: str) -> str:
    """Write the page: lost tokens stand out; those in numbers, names and code are underlined.

    An InputError if a text was not kept.
    """
    return html_page(_parts(memory, offsets), title=title, style=_STYLE + _shades())


def fidelity_html(memory: Memory, offsets: Offsets | None = None) -> str:
    """What the page shows, as a part of another page; figures alone of texts not kept.

    Without `offsets` spans are shaded as wholes.
    """
    if any(document.source is None for document in memory.documents):
        parts = [_summary(memory), "<p>The text was not kept.</p>"]
    else:
        parts = _parts(memory, offsets or [None] * len(memory.documents))
    style = f".icae{{{_PART_STYLE}{_STYLE}{_shades()}}}"
    return f'<div class="icae"><style>\n{style}</style>\n{"".join(parts)}</div>'


def _parts(memory: Memory, offsets: Offsets) -> list[str]:
    parts = [_summary(memory), _legend()]
    for index, (document, starts) in enumerate(zip(memory.documents, offsets, strict=True)):
        parts += _document(memory, index, document, starts)
    return parts


def _shades() -> str:
    """One rule for each level: from white, certain, to red, lost."""
    rules = []
    for level in range(LEVELS + 1):
        strength = round(0.55 * (1 - level / LEVELS), 3)
        rules.append(f".c{level}{{background:rgba(225,60,40,{strength})}}\n")
    return "".join(rules)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _summary(memory: Memory) -> str:
    figures = {
        "tokens": str(memory.tokens),
        "decoder positions": str(memory.positions),
        "slots": str(memory.slot_count),
        "verbatim tokens": str(memory.verbatim_tokens),
        "tokens per position": f"{memory.ratio:.2f}",
        "fidelity": _percent(memory.fidelity),
        "recall": _percent(memory.recall),
    }
    head = "".join(f"<th>{name}</th>" for name in figures)
    cells = "".join(f"<td>{value}</td>" for value in figures.values())
    return f"<table><tr>{head}</tr><tr>{cells}</tr></table>\n"


def _legend() -> str:
    shades = "".join(
        f'<span class="c{level}">{10 * level} %</span>' for level in range(0, LEVELS + 1, 2)
    )
    return (
        f'<p class="key">Probability of the right token: {shades}<br>'
        '<span class="v">verbatim, exact</span><span class="n">not measured</span>'
        '<span class="l">lost: another token is likelier</span>'
        '<span class="l u">lost number, name or code</span></p>\n'
    )


def _document(
    memory: Memory, index: int, document: MemoryDocument, offsets: Sequence[int] | None
) -> Iterator[str]:
    """Heading, table of spans and shaded text of one document."""
    source = document.source or ""
    words = critical_words(source)
    body, rows, lost_words = [], [], set()
    for span_index, stretches in shaded_spans(memory, index, offsets):
        span = memory.spans[span_index]
        lost = [overlapping_word(words, s.start, s.end) for s in stretches if s.lost]
        lost_words |= {word.start for word in lost if word is not None}
        rows.append(_row(span_index, span, len(lost), sum(word is not None for word in lost)))
        body.append(_shaded(span_index, span, stretches, source, words))
    yield f"<h2>{escaped(document.name)}</h2>\n"
    if offsets is None or memory.token_fidelity is None:
        yield "<p>Only whole spans are shaded.</p>\n"
    elif lost_words:
        yield f"<p>{len(lost_words)} numbers, names or pieces of code have lost tokens.</p>\n"
    yield f'<div class="text">{"".join(body)}</div>\n'
    yield (
        "<details><summary>Spans</summary><table><tr><th>span</th><th>characters</th>"
        '<th>tokens</th><th>positions</th><th class="w">held as</th><th>fidelity</th>'
        "<th>recall</th><th>lost</th><th>in numbers, names, code</th></tr>\n"
        f"{''.join(rows)}</table></details>\n"
    )


def _held_as(span: Span) -> str:
    return "verbatim" if span.kind == "tokens" else f"slots, {span.ratio:g}x"


def _row(index: int, span: Span, lost: int, critical: int) -> str:
    return (
        f"<tr><td>{index}</td><td>{span.char_start}–{span.char_end}</td><td>{span.tokens}</td>"
        f'<td>{span.positions}</td><td class="w">{_held_as(span)}</td>'
        f"<td>{_percent(span.fidelity)}</td><td>{_percent(span.recall)}</td><td>{lost}</td><td>{critical}</td></tr>\n"
    )


def _shaded(
    index: int,
    span: Span,
    stretches: Sequence[Stretch],
    source: str,
    words: Sequence[CriticalWord],
) -> str:
    """The text of one span; neighbours of one look share an element."""
    parts = []
    classes = [(_classes(span, s, words), s) for s in stretches]
    for name, group in itertools.groupby(classes, key=lambda item: item[0]):
        alike = [stretch for _, stretch in group]
        text = escaped(source[alike[0].start : alike[-1].end])
        parts.append(f'<span class="{name}">{text}</span>')
    title = f"span {index}: {_held_as(span)}, fidelity {_percent(span.fidelity)}"
    return f'<span class="s" title="{title}">{"".join(parts)}</span>'


def _classes(span: Span, stretch: Stretch, words: Sequence[CriticalWord]) -> str:
    if span.kind == "tokens":
        return "v"
    if stretch.confidence is None:
        return "n"
    shade = f"c{int(stretch.confidence * LEVELS)}"
    if not stretch.lost:
        return shade
    critical = overlapping_word(words, stretch.start, stretch.end) is not None
    return f"{shade} l u" if critical else f"{shade} l"
