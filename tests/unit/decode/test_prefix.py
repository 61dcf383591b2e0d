from __future__ import annotations

from typing import Any

import numpy as np

from icae.config import ModelConfig
from icae.decode.prefix import Prefix, ReadSoFar
from icae.memory import Embeddings, KeyValueSlots, Verbatim

CONFIG = ModelConfig(framing="around", objective_tokens=2)
SLOTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def prefix(slots: object = SLOTS, objective: str = "ft") -> Prefix:
    return of_slots((slots, 9), objective=objective)


def of_slots(*spans: Any, objective: Any = "ft") -> Prefix:
    """Slots of some spans of so many tokens."""
    return Prefix(
        parts=tuple(Embeddings(slots_KD=slots) for slots, _ in spans),
        spans=tuple((tokens, len(slots)) for slots, tokens in spans),
        objective=objective,
    )


def test_two_questions_on_one_memory_share_it_and_what_their_prompts_begin_with() -> None:
    first = ReadSoFar.of(CONFIG, prefix(), [5, 6, 7])

    assert len(first) == 2 + 3 + 2 + 3
    assert first.shared(ReadSoFar.of(CONFIG, prefix(SLOTS.copy()), [5, 6, 9, 9])) == 2 + 3 + 2 + 2
    assert first.shared(ReadSoFar.of(CONFIG, prefix(), [])) == 2 + 3 + 2


def test_a_memory_that_grew_shares_its_first_slots() -> None:
    grown = of_slots((SLOTS, 9), (SLOTS + 9, 9))

    assert ReadSoFar.of(CONFIG, prefix(), [5]).shared(ReadSoFar.of(CONFIG, grown, [5])) == 2 + 3


def test_keys_and_values_that_were_loaded_again_are_told_by_what_they_hold() -> None:
    config = ModelConfig(memory="key-values", framing="between", objective_tokens=2)
    pairs = np.random.default_rng(0).standard_normal((3, 1, 2, 1, 4), dtype=np.float32)

    def read(pairs: Any) -> ReadSoFar:
        slots = KeyValueSlots(pairs_KY2HW=pairs)
        return ReadSoFar.of(config, Prefix.of_payload(slots, tokens=3, objective="ft"), [5])

    assert read(pairs).shared(read(pairs.copy())) == 2 + 3 + 2 + 1
    changed = pairs.copy()
    changed[1, 0, 0, 0] = pairs[1, 0, 0, 0, ::-1]
    assert read(pairs).shared(read(changed)) == 2


def test_other_slots_objectives_or_no_memory_share_nothing_beyond_the_difference() -> None:
    first = ReadSoFar.of(CONFIG, prefix(), [5])
    changed = SLOTS.copy()
    changed[1, 0] += 1e-3

    assert first.shared(ReadSoFar.of(CONFIG, prefix(changed), [5])) == 2 + 1
    assert first.shared(ReadSoFar.of(CONFIG, prefix(objective="ae"), [5])) == 0
    assert first.shared(ReadSoFar.of(CONFIG, None, [5])) == 0


def test_verbatim_tokens_and_prompt_tokens_are_told_from_slots_by_what_they_are() -> None:
    tokens = Prefix(
        parts=(Verbatim(ids=np.array([3, 4])), Embeddings(slots_KD=SLOTS)),
        spans=((2, 2), (9, 3)),
        objective="ft",
    )
    first = ReadSoFar.of(CONFIG, tokens, [5])

    assert first.keys[2:4] == [3, 4]
    assert first.shared(ReadSoFar.of(CONFIG, tokens, [6])) == 2 + 2 + 3 + 2


def test_the_same_inputs_at_other_positions_are_not_shared() -> None:
    config = ModelConfig(layout="uniform")
    near = of_slots((SLOTS, 3))
    far = of_slots((SLOTS, 300))

    assert ReadSoFar.of(config, near, [5]).shared(ReadSoFar.of(config, far, [5])) == 0


def test_a_token_that_was_written_stands_behind_the_others() -> None:
    read = ReadSoFar.of(CONFIG, prefix(), [5])
    read.add(8)

    assert read.shared(ReadSoFar.of(CONFIG, prefix(), [5, 8, 9])) == 2 + 3 + 2 + 2
    assert read.positions[-2:] == [7, 8]
