"""Readers behind refined, adaptive and noted memories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from icae.compression.compressor import verbatim_spans
from icae.compression.refinement import RefineConfig
from icae.evals.questions import Question
from icae.evals.readers import MemoryReader
from icae.evals.segment_readers import (
    BudgetShaper,
    NotedReader,
    RefinedShaper,
    SegmentReader,
    VerbatimShaper,
)
from icae.model import render_full_prompt, tokenize

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


def read(reader: Any, questions: Any, ratio: float | None = 4.0) -> Any:
    return reader.read(questions, ratio, lambda tokens: None)


def test_refined_memory_has_the_positions_of_the_plain_one_and_other_slots(
    engine: Any, questions: Any
) -> None:
    config = RefineConfig(steps=2, kl_weight=0.0, slack=np.inf)
    plain = read(MemoryReader(engine), questions)
    refined = read(SegmentReader(engine, RefinedShaper(engine=engine, config=config)), questions)
    for before, after in zip(plain, refined, strict=True):
        assert after.context_positions == before.context_positions
        assert after.request.prompt_ids.tolist() == before.request.prompt_ids.tolist()
        assert after.memory.spans == before.memory.spans
        assert not np.array_equal(after.memory.slots_KD, before.memory.slots_KD)


def test_refined_slots_are_held_better(engine: Any, questions: Any) -> None:
    config = RefineConfig(steps=40, kl_weight=0.0, slack=np.inf)
    shaper = RefinedShaper(engine=engine, config=config)
    cut = [verbatim_spans(questions[2].context_ids[:16], span_length=16)]
    ((made,),) = shaper.segments([questions[2]], cut, 2.0)
    (plain,) = engine.compressor.encode(cut[0], ratio=2.0)
    assert made.token_fidelity.share > plain.token_fidelity.share
    assert made.refine_steps > 0


def test_adaptive_memory_stays_within_the_positions_of_the_ratio(
    engine: Any, questions: Any
) -> None:
    plain = read(MemoryReader(engine), questions)
    adaptive = read(SegmentReader(engine, BudgetShaper(engine=engine)), questions)
    for fixed, own in zip(plain, adaptive, strict=True):
        assert own.context_positions <= fixed.context_positions
        assert sum(tokens for tokens, _ in own.memory.spans) == sum(
            tokens for tokens, _ in fixed.memory.spans
        )


def test_verbatim_memory_is_the_embeddings_of_the_context(engine: Any, questions: Any) -> None:
    (first, *_, last) = read(
        SegmentReader(engine, VerbatimShaper(engine=engine)), questions, ratio=None
    )
    embed = engine.runtime.model.decoder.get_input_embeddings()
    expected = embed(torch.from_numpy(questions[0].context_ids)).detach().float().numpy()
    assert np.allclose(first.memory.slots_KD, expected, atol=1e-6)
    assert last.context_positions - first.context_positions == len(questions[2].context_ids) - len(
        questions[0].context_ids
    )


def test_note_stands_before_the_question_and_its_tokens_are_counted(
    engine: Any, questions: Any
) -> None:
    plain = read(MemoryReader(engine), questions)
    noted = read(NotedReader(engine), questions)
    note = "Words in the text: Anna, 17"
    expected = render_full_prompt(engine.tokenizer, note, questions[0].prompt)
    assert noted[0].request.prompt_ids.tolist() == expected.tolist()
    more = noted[0].context_positions - plain[0].context_positions
    assert more == len(tokenize(engine.tokenizer, note))
    assert noted[2].request.prompt_ids.tolist() == plain[2].request.prompt_ids.tolist()
