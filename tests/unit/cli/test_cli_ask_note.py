"""`icae ask --note`: what the slots lose stands before the question."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from icae.cli import ask as command
from icae.memory import TokenFidelity
from word_memories import with_spans

TEXT = "In 1861 the inn of Anna had seventeen rooms, and in 1903 Bert sold it."


@pytest.fixture
def lossy(build_memory, tmp_path, monkeypatch):
    """A memory whose slots lose ``1861`` and ``Bert`` and hold the rest."""
    memory = build_memory(TEXT)
    words = list(re.finditer(r"\S+", TEXT))
    held = np.array([word.group() not in ("1861", "Bert") for word in words])
    fidelity = TokenFidelity.of_probabilities(held, np.where(held, 0.9, 0.1))
    path = tmp_path / "lossy.icae"
    spans = []
    for span in memory.spans:
        own = fidelity.part(span.token_start, span.token_end)
        spans.append(replace(span, fidelity=own.share, token_fidelity=own))
    with_spans(memory, spans).save(path)
    starts = [word.start() for word in words]
    monkeypatch.setattr(command, "token_places", lambda memory, base: [starts])
    return path


def test_the_note_names_what_the_slots_lose_and_the_question_follows_it(icae, fake, lossy) -> None:
    result = icae("ask", lossy, "When?", "--note", "--json")
    assert result.exit_code == 0, result.output
    assert fake.asked[0]["question"] == "Words in the text: 1861, Bert\n\nWhen?"
    assert json.loads(result.stdout)["question"] == "When?"


def test_without_the_option_there_is_no_note(icae, fake, lossy) -> None:
    icae("ask", lossy, "When?")
    assert fake.asked[0]["question"] == "When?"


def test_a_memory_that_was_not_measured_is_refused_before_the_model_is_loaded(
    icae, no_engine, memory_file, monkeypatch
) -> None:
    monkeypatch.setattr(command, "token_places", lambda memory, base: [None])
    result = icae("ask", memory_file, "When?", "--note")
    assert result.exit_code == 1
    assert "A note of what the slots lose needs the text and the fidelity" in result.stderr
    assert "Leave --note out" in result.stderr


def test_a_note_beside_the_full_context_is_wrong_usage(icae, no_engine, memory_file) -> None:
    result = icae("ask", memory_file, "When?", "--note", "--full-context")
    assert result.exit_code == 2
