"""The frozen decoder behind raw tokens, without slots and without an objective token.

Shape legend: R rows, S places of the longest row, T scored tokens of all rows, D hidden
size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from icae.errors import InputError
from icae.model import IcaeModel
from icae.runtimes.torch import TorchRuntime
from icae.types import TokenIds


@dataclass(frozen=True, kw_only=True)
class PlainRow:
    """Tokens that the plain decoder reads.

    Attributes:
        ids: All token ids.
        scored: How many of the last ones are scored; the first token never can be.
    """

    ids: TokenIds
    scored: int

    def __post_init__(self) -> None:
        if not 1 <= self.scored < len(self.ids):
            raise InputError(
                "The plain decoder cannot score that many tokens.",
                got=f"{self.scored} of {len(self.ids)}",
                expected="at least one, and one token before them",
            )


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
        result += _losses(runtime.model, rows[part])
        tick(sum(len(row.ids) for row in rows[part]))
    return result


@torch.inference_mode()
def _losses(model: IcaeModel, rows: Sequence[PlainRow]) -> list[NDArray[np.float64]]:
    """One forward pass; rows are padded on the right, where causal attention cannot look.

    The mask of ones is needed: without one, transformers 5 reads the positions of padded
    rows as packed sequences. Vocabulary logits are computed at scored tokens only.
    """
    size = max(len(row.ids) for row in rows)
    ids_RS = np.zeros((len(rows), size), dtype=np.int64)
    positions_RS = np.zeros_like(ids_RS)
    for i, row in enumerate(rows):
        ids_RS[i, : len(row.ids)] = row.ids
        positions_RS[i, : len(row.ids)] = np.arange(len(row.ids))
    ids = torch.from_numpy(ids_RS).to(model.device)
    hidden_RSD = model.decoder.base_model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=torch.from_numpy(positions_RS).to(model.device),
        use_cache=False,
    ).last_hidden_state
    hidden, targets = [], []
    for i, row in enumerate(rows):
        end = len(row.ids)
        hidden.append(hidden_RSD[i, end - row.scored - 1 : end - 1])
        targets.append(ids[i, end - row.scored : end])
    logits_TV = model.decoder.get_output_embeddings()(torch.cat(hidden)).float()
    losses_T = nn.functional.cross_entropy(logits_TV, torch.cat(targets), reduction="none")
    ends = np.cumsum([row.scored for row in rows])[:-1]
    return np.split(losses_T.double().cpu().numpy(), ends)
