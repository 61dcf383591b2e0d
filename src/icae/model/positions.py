"""Position layouts: where context, memory tokens and slots stand on the position axis.

L context tokens of a span, K slots. The layout decides two things and nothing else:
the positions of the K memory tokens in the encoder, and the positions of the slots
(and so of the prompt after them) in the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

from icae.config.spans import chunk_centres
from icae.config.types import PositionLayout


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
    positions = list(range(front))
    start = front
    for length, slots in spans:
        positions += [start + centre for centre in chunk_centres(length, slots)]
        start += length
    return positions + list(range(start, start + prompt_length))
