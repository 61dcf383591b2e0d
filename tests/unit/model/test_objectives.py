from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icae.errors import InputError
from icae.model.objectives import autoencoding, continuation, instruction

IDS = st.lists(st.integers(0, 500), min_size=1, max_size=20)


@given(prompt=st.lists(st.integers(0, 500), max_size=20), answer=IDS)
def test_targets_are_given_or_scored_and_inputs_stand_one_before_them(prompt, answer):
    asked = instruction(np.array(prompt, dtype=np.int64), np.array(answer, dtype=np.uint16))
    written = [make(np.array(answer)) for make in (autoencoding, continuation)]
    for task, given_ids in ((asked, prompt), (written[0], []), (written[1], [])):
        # The objective token predicts target 0, input i predicts target i + 1.
        assert task.target_ids.tolist() == given_ids + answer
        assert task.input_ids.tolist() == (given_ids + answer)[:-1]
        assert (task.unscored, task.labels) == (len(given_ids), len(answer))
        assert task.scored_ids.tolist() == answer
        assert task.input_ids.dtype == np.int64


def test_an_objective_without_a_scored_token_is_refused():
    none = np.array([], dtype=np.int64)
    for make in (autoencoding, continuation, lambda ids: instruction(np.arange(3), ids)):
        with pytest.raises(InputError, match="nothing to predict"):
            make(none)
