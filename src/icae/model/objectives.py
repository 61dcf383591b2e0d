"""The objectives as pure functions: token ids -> (decoder input, targets, label mask).

The decoder reads ``[slots ; objective token ; input_ids]`` and is scored on
``target_ids``: the output at the objective token predicts ``target_ids[0]``, the output
at ``input_ids[i]`` predicts ``target_ids[i + 1]``. So T targets need T - 1 inputs.
Source: Ge et al. 2024, sections 2.2 and 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from icae.config.types import Objective, TokenIds
from icae.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DecoderTask:
    """What the decoder reads behind the slots and what it is scored on.

    Attributes:
        objective: Which objective token precedes the inputs.
        input_ids: T - 1 token ids read after the objective token.
        target_ids: T token ids to predict.
        label_mask: [T] bool; only True targets are scored.
        full_prompt_ids: Of an instruction, the prompt with the whole context in it: what the
            plain decoder reads before the scored targets; None where it is not needed.
    """

    objective: Objective
    input_ids: TokenIds
    target_ids: TokenIds
    label_mask: NDArray[np.bool_]
    full_prompt_ids: TokenIds | None = None

    @property
    def labels(self) -> int:
        """Number of scored targets."""
        return int(self.label_mask.sum())

    @property
    def scored_ids(self) -> TokenIds:
        """The targets that are scored, [labels]."""
        return self.target_ids[self.label_mask]


def _task(objective: Objective, ids: TokenIds, unscored: int) -> DecoderTask:
    ids = np.asarray(ids, dtype=np.int64)
    if ids.ndim != 1 or len(ids) - unscored < 1:
        raise InputError(
            f"The {objective} objective has nothing to predict.",
            got=f"{len(ids)} tokens, {unscored} of them unscored",
            expected="at least one scored token",
        )
    mask = np.ones(len(ids), dtype=np.bool_)
    mask[:unscored] = False
    return DecoderTask(objective=objective, input_ids=ids[:-1], target_ids=ids, label_mask=mask)


def autoencoding(context_ids: TokenIds) -> DecoderTask:
    """AE: write the whole context back from its slots. Every token is scored.

    Args:
        context_ids: The context's L token ids.

    Raises:
        InputError: If it is empty.
    """
    return _task("ae", context_ids, 0)


def continuation(next_ids: TokenIds) -> DecoderTask:
    """LM: write what came after the context. Every token is scored.

    Args:
        next_ids: The token ids that follow the context.

    Raises:
        InputError: If there are none.
    """
    return _task("lm", next_ids, 0)


def instruction(
    prompt_ids: TokenIds, answer_ids: TokenIds, *, full_prompt_ids: TokenIds | None = None
) -> DecoderTask:
    """FT: answer a prompt. Exactly the prompt is unscored, the answer (with its end) is.

    Args:
        prompt_ids: The rendered prompt.
        answer_ids: The answer, ending in the token that ends a turn.
        full_prompt_ids: The rendered prompt with the whole context in it, for a teacher or a
            reader that sees the context itself.

    Raises:
        InputError: If the answer is empty.
    """
    task = _task("ft", np.concatenate([prompt_ids, answer_ids]), len(prompt_ids))
    return replace(task, full_prompt_ids=full_prompt_ids)


def combine(ae_loss: float, lm_loss: float, ae_weight: float) -> float:
    """The loss ``lambda * L_AE + (1 - lambda) * L_LM``, with lambda = `ae_weight`."""
    return ae_weight * ae_loss + (1.0 - ae_weight) * lm_loss
