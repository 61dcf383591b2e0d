"""The note of words that the slots of a memory lose."""

from __future__ import annotations

import numpy as np

from icae.memory.risk_note import note_of_words, words_at_risk


def test_words_are_at_risk_if_one_of_their_tokens_is_lost():
    text = "In 1861 Anna saw Bert, and Anna left."
    starts = [0, 3, 5, 8, 13, 17, 23, 27, 32]
    reproduced = np.array([False, True, False, True, False, True, True, False, True])
    assert words_at_risk(text, starts, reproduced) == ["1861", "Anna"]
    assert words_at_risk(text, starts, np.ones(9, dtype=np.bool_)) == []


def test_a_note_without_words_is_empty():
    assert note_of_words([]) == ""
    assert note_of_words(["1861", "Anna"]) == "Words in the text: 1861, Anna"
