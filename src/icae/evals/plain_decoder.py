"""Losses of the frozen decoder behind raw tokens, in passes of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from icae.decode.torch import TorchRuntime
from icae.model import PlainRow, plain_logits


@torch.inference_mode()
def plain_losses(
    runtime: TorchRuntime, rows: Sequence[PlainRow], *, tick: Callable[[int], None]
) -> list[NDArray[np.float64]]:
    """Teacher-forced loss of every scored token, in forward passes of bounded size.

    Args:
        runtime: Holds the decoder.
        rows: What to read and to score.
        tick: Called with the tokens of each pass once it is done.

    Returns:
        Token losses (nats) of each row, [scored].
    """
    result: list[NDArray[np.float64]] = []
    for part in runtime.batches([len(row.ids) for row in rows]):
        for row, logits_TV in zip(
            rows[part], plain_logits(runtime.model.decoder, rows[part]), strict=True
        ):
            targets_T = torch.from_numpy(row.ids[-row.scored :]).to(logits_TV.device)
            losses_T = nn.functional.cross_entropy(logits_TV, targets_T, reduction="none")
            result.append(losses_T.double().cpu().numpy())
        tick(sum(len(row.ids) for row in rows[part]))
    return result
