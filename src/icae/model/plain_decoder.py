"""A decoder behind raw tokens, without slots and without an objective token.

Shape legend: R rows, S places of the longest row, T scored tokens, D hidden size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from icae.config.types import TokenIds
from icae.errors import InputError


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


def plain_logits(decoder: PreTrainedModel, rows: Sequence[PlainRow]) -> list[Tensor]:
    """Logits that predict the scored tokens of each row, in one forward pass.

    Rows are padded on the right, where causal attention cannot look. The mask of ones is
    needed: without one, transformers 5 reads the positions of padded rows as packed
    sequences. Vocabulary logits are computed at scored tokens only.

    Args:
        decoder: The causal LM; frozen, or with a LoRA, to which gradients flow.
        rows: What to read and to score.

    Returns:
        Logits [scored, V] of each row, float32.
    """
    device = decoder.get_input_embeddings().weight.device
    size = max(len(row.ids) for row in rows)
    ids_RS = np.zeros((len(rows), size), dtype=np.int64)
    positions_RS = np.zeros_like(ids_RS)
    for i, row in enumerate(rows):
        ids_RS[i, : len(row.ids)] = row.ids
        positions_RS[i, : len(row.ids)] = np.arange(len(row.ids))
    ids = torch.from_numpy(ids_RS).to(device)
    hidden_RSD = decoder.base_model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=torch.from_numpy(positions_RS).to(device),
        use_cache=False,
    ).last_hidden_state
    picked_TD = torch.cat(
        [
            hidden_RSD[i, len(row.ids) - row.scored - 1 : len(row.ids) - 1]
            for i, row in enumerate(rows)
        ]
    )
    logits_TV = decoder.get_output_embeddings()(picked_TD).float()
    return list(logits_TV.split([row.scored for row in rows]))
