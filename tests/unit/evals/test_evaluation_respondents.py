"""Respondents behind refined, adaptive and noted memories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from icae.compression.compressor import verbatim_spans
from icae.compression.refinement import RefineConfig
from icae.evals.questions import Question
from icae.evals.readers import respondents
from icae.evals.respondents import refined
from icae.model.prompts import render_full_prompt, tokenize

TEXT = "The inn of Anna had 17 rooms and a lamp."


@pytest.fixture
def questions(engine: Any) -> list[Question]:
    """Two questions about one context, one about another."""
    texts = (TEXT, TEXT, "Rain fell on the harbour.")
    return [
        Question(
            context=text,
            context_ids=tokenize(engine.tokenizer, text),
            prompt=f"What of {i}?",
            answers=("a lamp",),
            group=min(i, 1) if i < 2 else 2,
        )
        for i, text in enumerate(texts)
    ]


@pytest.fixture
def read(engine: Any, questions: Any) -> Any:
    """``read(name, ratio=4.0)``: the questions, read by a respondent."""
    refine = RefineConfig(steps=2, kl_weight=0.0, slack=np.inf)
    return lambda name, ratio=4.0: respondents(engine, [name], refine=refine)[0][name](
        questions, ratio
    )


def test_refined_memory_has_the_positions_of_the_plain_one_and_other_slots(read: Any) -> None:
    plain, better = read("memory"), read("refined memory")
    assert better.positions == plain.positions
    assert [p.tolist() for p in better.prompts] == [p.tolist() for p in plain.prompts]
    for before, after in zip(plain.held.memories, better.held.memories, strict=True):
        assert after.spans == before.spans
        assert not np.array_equal(after.numbers, before.numbers)


def test_refined_slots_are_held_better(engine: Any, questions: Any) -> None:
    config = RefineConfig(steps=40, kl_weight=0.0, slack=np.inf)
    ids = questions[2].context_ids[:16]
    held = refined(engine, config)([ids], 2.0)
    (plain,) = engine.compressor.encode(verbatim_spans(ids, engine.config), ratio=2.0)
    (found,) = engine.runtime.fidelity(held.memories[0].parts, [ids])
    assert found.share > plain.token_fidelity.share


def test_adaptive_memory_stays_within_the_positions_of_the_ratio(read: Any) -> None:
    plain, adaptive = read("memory"), read("adaptive memory")
    assert all(own <= most for own, most in zip(adaptive.positions, plain.positions, strict=True))
    for fixed, own in zip(plain.held.memories, adaptive.held.memories, strict=True):
        assert sum(n for n, _ in own.spans) == sum(n for n, _ in fixed.spans)


def test_verbatim_memory_is_the_tokens_of_the_context(read: Any, questions: Any) -> None:
    found = read("verbatim memory")
    parts = found.held.memories[0].parts
    assert {part.kind for part in parts} == {"tokens"}
    assert np.array_equal(np.concatenate([p.ids for p in parts]), questions[0].context_ids)
    assert found.positions == [len(question.context_ids) for question in questions]


def test_note_stands_before_the_question_and_its_tokens_are_counted(
    engine: Any, read: Any, questions: Any
) -> None:
    plain, noted = read("memory"), read("memory with note")
    note = "Words in the text: Anna, 17"
    expected = render_full_prompt(engine.tokenizer, note, questions[0].prompt)
    assert noted.prompts[0].tolist() == expected.tolist()
    assert noted.positions[0] - plain.positions[0] == len(tokenize(engine.tokenizer, note))
    assert noted.prompts[2].tolist() == plain.prompts[2].tolist()
