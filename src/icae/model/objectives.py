"""The objectives: token ids -> what the decoder reads behind a memory, and what it is scored on.

The decoder reads ``[memory ; objective tokens ; input_ids]`` and is scored on ``target_ids``: the
output at the last objective token predicts ``target_ids[0]``, the output at ``input_ids[i]``
predicts ``target_ids[i + 1]``. So T targets need T - 1 inputs.

A new objective is a function here, its name in `icae.config.types.OBJECTIVES` and its weight in
`icae.model.losses.objective_weights`.

Source: Ge et al. 2024, sections 2.2 and 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from icae.config.types import Objective, TokenIds
from icae.errors import InputError

PROBE_GIVEN = (3, 9)
"""How many tokens a recall task gives: at least, and one more than at most."""

PROBE_FOUND = 16
"""How many tokens it asks for."""


@dataclass(frozen=True, kw_only=True)
class DecoderTask:
    """What the decoder reads behind a memory and what it is scored on.

    Attributes:
        objective: Whose loss it counts for.
        target_ids: T token ids to predict, int64.
        unscored: How many of the first ones are given, not scored.
        tokens: Whose objective tokens stand around the memory.
        full_prompt_ids: Of an instruction, the prompt with the whole context in it: what the
            plain decoder reads before the scored targets; None where it is not needed.

    Raises:
        InputError: If there is nothing to predict.
    """

    objective: Objective
    target_ids: TokenIds
    tokens: Objective
    unscored: int = 0
    full_prompt_ids: TokenIds | None = None

    def __post_init__(self) -> None:
        if self.target_ids.ndim != 1 or self.labels < 1:
            raise InputError(
                f"The {self.objective} objective has nothing to predict.",
                got=f"{len(self.target_ids)} tokens, {self.unscored} of them unscored",
                expected="at least one scored token",
            )

    @property
    def input_ids(self) -> TokenIds:
        """The T - 1 ids read behind the objective tokens."""
        return self.target_ids[:-1]

    @property
    def labels(self) -> int:
        """Number of scored targets."""
        return len(self.target_ids) - self.unscored

    @property
    def scored_ids(self) -> TokenIds:
        """The targets that are scored, [labels]."""
        return self.target_ids[self.unscored :]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One context and what the decoder must do with its memory.

    Attributes:
        context_ids: The context's token ids, of any length; cut into spans.
        ratio: Compression ratio of its spans.
        tasks: Decoder tasks that share the one memory.
    """

    context_ids: TokenIds
    ratio: float
    tasks: tuple[DecoderTask, ...]


def autoencoding(context_ids: TokenIds) -> DecoderTask:
    """AE: write the whole context back from its memory. Every token (at least one) is scored."""
    return DecoderTask(objective="ae", tokens="ae", target_ids=_ids(context_ids))


def continuation(next_ids: TokenIds) -> DecoderTask:
    """LM: write what came after the context. Every token (at least one) is scored."""
    return DecoderTask(objective="lm", tokens="lm", target_ids=_ids(next_ids))


def recall(ids: TokenIds, *, given: int) -> DecoderTask:
    """Recall: the first `given` tokens are the prompt, those that follow them are to be found.

    The ids are a stretch of the context. It is asked between the tokens of instructions, as it
    teaches what these need: that a memory can be searched. An InputError if nothing follows.
    """
    return DecoderTask(objective="recall", tokens="ft", target_ids=_ids(ids), unscored=given)


def draw_probes(
    rng: np.random.Generator, context_ids: TokenIds, count: int
) -> tuple[DecoderTask, ...]:
    """Recall tasks at random places of a context, as many as ask for something."""
    tasks = []
    for _ in range(count):
        given = int(rng.integers(*PROBE_GIVEN))
        room = len(context_ids) - given - 1
        if room >= 0:
            start = int(rng.integers(max(1, room - PROBE_FOUND + 2)))
            tasks.append(recall(context_ids[start : start + given + PROBE_FOUND], given=given))
    return tuple(tasks)


def instruction(
    prompt_ids: TokenIds, answer_ids: TokenIds, *, full_prompt_ids: TokenIds | None = None
) -> DecoderTask:
    """FT: answer a prompt. Exactly the prompt is unscored, the answer (with its end) is.

    A decoder that sees the context itself reads `full_prompt_ids`: the prompt with the whole
    context in it. An InputError if the answer is empty.
    """
    return DecoderTask(
        objective="ft",
        tokens="ft",
        target_ids=_ids(np.concatenate([prompt_ids, answer_ids])),
        unscored=len(prompt_ids),
        full_prompt_ids=full_prompt_ids,
    )


def _ids(ids: TokenIds) -> TokenIds:
    return np.asarray(ids, dtype=np.int64)
