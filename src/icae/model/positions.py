"""Where context, memory tokens and slots stand on the position axis.

L context tokens of a span, K slots. Of input embeddings the layout decides two things and
nothing else: the positions of the K memory tokens in the encoder, and the positions of the slots
(and so of the prompt after them) in the decoder. Where keys and values stand is decided by what
they are read for.
"""

from __future__ import annotations

from collections.abc import Sequence

from icae.config.spans import chunk_centres
from icae.config.types import Objective, PositionLayout


def encoder_positions(layout: PositionLayout, length: int, slots: int) -> list[int]:
    """The L + K positions of ``[context ; memory tokens]`` of one span."""
    if layout == "default":
        return list(range(length + slots))
    return [*range(length), *chunk_centres(length, slots)]


def decoder_positions(
    layout: PositionLayout,
    spans: Sequence[tuple[int, int]],
    prompt_length: int,
    *,
    front: int = 0,
) -> list[int]:
    """Positions of ``[front ; slots of all spans ; prompt]`` in the decoder.

    Spans are (context tokens, slots); the objective tokens behind the slots count as prompt.
    Contiguous from 0 except in the ``uniform`` layout, where slots stand at the centres of their
    chunks of the document and the prompt starts behind its last token.
    """
    if layout != "uniform":
        return list(range(front + sum(slots for _, slots in spans) + prompt_length))
    start = front + sum(length for length, _ in spans)
    slots = [front + place for place in document_places(spans)]
    return [*range(front), *slots, *range(start, start + prompt_length)]


def document_places(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Place of each slot of spans (context tokens, slots): the centre of its chunk in the text."""
    places, start = [], 0
    for length, slots in spans:
        places += [start + centre for centre in chunk_centres(length, slots)]
        start += length
    return places


def key_value_positions(
    objective: Objective, places: Sequence[int], prompt_length: int, *, front: int, behind: int
) -> list[int]:
    """Positions of ``[front ; slots ; behind ; prompt]`` where slots are keys and values.

    Contiguous, but for a text that is written back ("ae"): that stands on the document's own axis,
    as the slots do (`document_places`), so that each token is at the place of the slot that holds
    it.
    """
    if objective != "ae":
        return list(range(front + len(places) + behind + prompt_length))
    # The tokens stand before the text, so that its first token is at its own place.
    text = front + behind
    return [*range(front), *(text + place for place in places), *range(front, text + prompt_length)]
