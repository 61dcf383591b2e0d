"""The text of a memory in stretches, each with how faithfully it is held.

The memory layer cannot tokenize: where each token starts comes from outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from icae.memory.fidelity import TokenFidelity
from icae.memory.memory import Memory


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Text that one token stands for, or a whole span where tokens are not known.

    Attributes:
        span: Index of its span in the memory.
        start: First character in the document.
        end: One past the last.
        confidence: Probability that the decoder gave it (0..1), of a whole span its
            fidelity, or None if it was not measured. Of tokens that share a character,
            the lowest.
        lost: Whether the decoder would rather have written something else.
    """

    span: int
    start: int
    end: int
    confidence: float | None
    lost: bool


def shaded_spans(
    memory: Memory, document: int, offsets: Sequence[int] | None
) -> Iterator[tuple[int, list[Stretch]]]:
    """Each span of a document by its index in the memory, with the stretches of its text.

    The stretches tile its characters. `offsets` are the characters at which the tokens of the
    document start; if they are not known (None), each span is shaded as a whole. An InputError if
    there is no such document, or its text was not kept.
    """
    memory.documents[document].require_source()
    measured = all(span.token_fidelity is not None for span in memory.spans)
    carried = _NOTHING
    for index in memory.span_range(document):
        span = memory.spans[index]
        if offsets is None or span.token_fidelity is None or not measured:
            whole = Stretch(
                span=index,
                start=span.char_start,
                end=span.char_end,
                confidence=span.fidelity,
                lost=False,
            )
            yield index, [whole]
            continue
        inside = offsets[span.token_start + 1 : span.token_end]
        edges = [min(max(at, span.char_start), span.char_end) for at in inside]
        edges = [span.char_start, *edges, span.char_end]
        stretches, carried = _tokens(index, edges, span.token_fidelity, carried)
        yield index, stretches


_NOTHING = 1.0, False
"""Confidence and loss carried over from tokens without characters of their own: none."""


def _tokens(
    span: int, edges: Sequence[int], fidelity: TokenFidelity, carried: tuple[float, bool]
) -> tuple[list[Stretch], tuple[float, bool]]:
    """One stretch for each token that has characters of its own, and what is carried on."""
    stretches = []
    lowest, lost = carried
    told = zip(fidelity.probabilities.tolist(), fidelity.reproduced.tolist(), strict=True)
    for i, (confidence, reproduced) in enumerate(told):
        lowest, lost = min(lowest, confidence), lost or not reproduced
        if edges[i + 1] > edges[i]:
            stretches.append(
                Stretch(span=span, start=edges[i], end=edges[i + 1], confidence=lowest, lost=lost)
            )
            lowest, lost = _NOTHING
    return stretches, (lowest, lost)
