from __future__ import annotations

import numpy as np
import pytest

from icae.errors import ConfigError
from icae.memory import TokenFidelity
from icae.memory.fidelity import join_token_fidelity


def fidelity(*reproduced: bool, confidence: int = 100) -> TokenFidelity:
    return TokenFidelity(
        reproduced=np.array(reproduced, dtype=np.bool_),
        confidence=np.full(len(reproduced), confidence, dtype=np.uint8),
    )


def test_probabilities_are_kept_in_steps_of_one_in_255():
    probabilities = np.array([0.0, 0.5, 1.0, 1.0000001, 1 / 255, 0.9979], dtype=np.float32)
    made = TokenFidelity.of_probabilities(np.ones(6, dtype=np.bool_), probabilities)

    assert made.confidence.tolist() == [0, 128, 255, 255, 1, 254]
    assert made.probabilities.dtype == np.float32
    np.testing.assert_allclose(made.probabilities, probabilities, atol=0.5 / 255 + 1e-6)
    again = TokenFidelity.of_probabilities(made.reproduced, made.probabilities)
    assert again == made


def test_share_is_that_of_the_tokens_reproduced():
    assert fidelity(True, False, True, True).share == 0.75
    verbatim = TokenFidelity.of_verbatim(3)
    assert (verbatim.share, verbatim.probabilities.tolist()) == (1.0, [1.0] * 3)


def test_parts_join_unless_one_was_not_measured():
    first, second = fidelity(True, False), fidelity(True)
    assert join_token_fidelity([first, second]) == fidelity(True, False, True)
    assert join_token_fidelity([first, None]) is None
    assert fidelity(True, False, True).part(1, 3) == fidelity(False, True)


@pytest.mark.parametrize(
    ("reproduced", "confidence"),
    [
        (np.ones(2, np.uint8), np.ones(2, np.uint8)),
        (np.ones(2, np.bool_), np.ones(2, np.float32)),
        (np.ones(2, np.bool_), np.ones(3, np.uint8)),
        (np.ones((2, 1), np.bool_), np.ones((2, 1), np.uint8)),
        ([True], [1]),
    ],
    ids=["no bools", "no bytes", "two lengths", "two axes", "lists"],
)
def test_arrays_of_another_kind_are_refused(reproduced, confidence):
    with pytest.raises(ConfigError, match="token_fidelity"):
        TokenFidelity(reproduced=reproduced, confidence=confidence)  # type: ignore[arg-type]
