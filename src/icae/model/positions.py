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
    """Positions of ``[context ; memory tokens]`` of one span.

    Args:
        layout: Position layout.
        length: Context tokens L.
        slots: Memory tokens K.

    Returns:
        L + K positions: 0..L-1, then the memory tokens'.
    """
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

    Args:
        layout: Position layout.
        spans: (context tokens, slots) of each span in order.
        prompt_length: Decoder inputs after the slots, the objective tokens included.
        front: Decoder inputs before the slots.

    Returns:
        One position for each decoder input. Contiguous from 0 except in the
        ``uniform`` layout, where slots stand at the centres of their chunks of the
        document and the prompt starts behind its last token.
    """
    if layout != "uniform":
        return list(range(front + sum(slots for _, slots in spans) + prompt_length))
    start = front + sum(length for length, _ in spans)
    slots = [front + place for place in document_places(spans)]
    return [*range(front), *slots, *range(start, start + prompt_length)]


def document_places(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Place of each slot on the document's own axis: the centre of its chunk.

    Args:
        spans: (context tokens, slots) of each span in order.
    """
    places, start = [], 0
    for length, slots in spans:
        places += [start + centre for centre in chunk_centres(length, slots)]
        start += length
    return places


def key_value_positions(
    objective: Objective, places: Sequence[int], prompt_length: int, *, front: int, behind: int
) -> list[int]:
    """Positions of ``[front ; slots ; behind ; prompt]`` where slots are keys and values.

    Args:
        objective: What they are read for. A text that is written back ("ae") stands on the
            document's own axis, so that each token is at the place of the slot that holds it;
            everything else is contiguous.
        places: Place of each slot on the document's own axis; see `document_places`.
        prompt_length: Tokens behind the objective tokens.
        front: Objective tokens before the slots.
        behind: Objective tokens behind them.
    """
    if objective != "ae":
        return list(range(front + len(places) + behind + prompt_length))
    # The tokens stand before the text, so that its first token is at its own place.
    text = front + behind
    return [*range(front), *(text + place for place in places), *range(front, text + prompt_length)]
