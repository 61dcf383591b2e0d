from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icae.errors import InputError
from icae.model.objectives import autoencoding, continuation, instruction

IDS = st.lists(st.integers(0, 500), min_size=1, max_size=20)


@given(prompt=st.lists(st.integers(0, 500), max_size=20), answer=IDS)
def test_the_instruction_objective_masks_exactly_the_prompt(
    prompt: list[int], answer: list[int]
) -> None:
    task = instruction(np.array(prompt, dtype=np.int64), np.array(answer))

    assert task.objective == "ft"
    assert task.target_ids.tolist() == prompt + answer
    assert task.unscored == len(prompt)
    assert task.scored_ids.tolist() == answer
    assert task.labels == len(answer)


@given(ids=IDS)
def test_inputs_are_the_targets_shifted_by_the_objective_token(ids: list[int]) -> None:
    for task in (autoencoding(np.array(ids)), continuation(np.array(ids))):
        # The objective token predicts target 0, input i predicts target i + 1.
        assert task.target_ids.tolist() == ids
        assert task.input_ids.tolist() == ids[:-1]
        assert task.scored_ids.tolist() == ids
        assert task.labels == len(ids)


def test_ids_become_int64_whatever_they_were() -> None:
    task = autoencoding(np.array([1, 2, 3], dtype=np.uint16))

    assert task.input_ids.dtype == np.int64
    assert task.target_ids.dtype == np.int64


def test_an_objective_without_a_scored_token_is_refused() -> None:
    none = np.array([], dtype=np.int64)

    for make in (autoencoding, continuation):
        with pytest.raises(InputError, match="nothing to predict"):
            make(none)
    with pytest.raises(InputError, match="ft objective"):
        instruction(np.array([1, 2, 3]), none)
