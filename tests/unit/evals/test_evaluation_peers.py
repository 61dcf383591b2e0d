"""Peers of the memory on the tiny engine: what they keep; all of it is the full context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from icae.errors import InputError
from icae.evals.decoding import slot_budget
from icae.evals.peers import bm25
from icae.evals.plots import pareto_of
from icae.evals.questions import Question
from icae.evals.readers import NORM, SNAP, SNAP_ASKED, WINDOW, respondents
from icae.evals.standing import standing
from icae.model.prompts import render_answer, render_full_prompt, tokenize

CACHES = (WINDOW, NORM, SNAP, SNAP_ASKED)
TEXTS = (
    "the lamp of a harbour town turned in the rain. Anna had 17 nets. other men had none of them",
    "Rain fell on the inner harbour and its men.",
)


@pytest.fixture
def questions(engine: Any) -> list[Question]:
    """Two questions about one context, one about another."""
    return [
        Question(
            context=TEXTS[group],
            context_ids=tokenize(engine.tokenizer, TEXTS[group]),
            prompt=prompt,
            answers=("17 nets",),
            group=group,
        )
        for group, prompt in ((0, "what had Anna?"), (0, "where was the lamp?"), (1, "what fell?"))
    ]


@pytest.fixture
def read(engine: Any, questions: Any) -> Any:
    """``read(name, ratio)``: the questions, read by a peer."""
    return lambda name, ratio: respondents(engine, [name])[0][name](questions, ratio)


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_that_keeps_everything_answers_as_the_full_context(
    engine: Any, questions: Any, read: Any, name: str
) -> None:
    full, kept = read("full context", 1.0), read(name, 1.0)
    reference = [render_answer(engine.tokenizer, "17 nets")] * len(questions)
    for whole, own in zip(full.losses(reference), kept.losses(reference), strict=True):
        assert own == pytest.approx(whole, abs=1e-4)
    whole, own = full.answer(6), kept.answer(6)
    assert [a.text for a in own] == [a.text for a in whole]
    assert [a.prompt_tokens for a in own] == [a.prompt_tokens for a in whole]
    assert kept.positions == tuple(len(q.context_ids) for q in questions)


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_keeps_as_many_places_as_there_are_slots_in_every_head(
    engine: Any, questions: Any, read: Any, name: str
) -> None:
    kept = read(name, 4.0)
    budgets = [slot_budget(len(q.context_ids), engine.config, 4.0) for q in questions]
    assert list(kept.positions) == budgets == list(read("memory", 4.0).positions)
    for question, cache, start, budget in zip(
        questions, kept.held.caches, kept.held.starts, budgets, strict=True
    ):
        prompt = render_full_prompt(engine.tokenizer, question.context, question.prompt)
        before = start - len(question.context_ids)
        assert {keys.shape[2] for keys, _ in cache} == {before + budget}
        assert engine.tokenizer.decode(prompt[before:start].tolist()) == question.context
    same = kept.held.caches[0] is kept.held.caches[1]
    assert same == (name != SNAP_ASKED)  # only the question makes it another
    read_once = sum(
        {id(c): s for c, s in zip(kept.held.caches, kept.held.starts, strict=True)}.values()
    )
    assert kept.read_before == read_once


def test_slots_that_lead_a_memory_count_and_its_peers_get_as_many(
    build_engine: Any, questions: Any
) -> None:
    engine = build_engine(memory="key-values", framing="between", lead_slots=3)
    budgets = [slot_budget(len(q.context_ids), engine.config, 4.0) + 3 for q in questions]
    for name in ("memory", "adaptive memory", "first tokens", NORM):
        (peer,) = respondents(engine, [name])[0].values()
        assert list(peer(questions, 4.0).positions) == budgets


def test_pruned_places_keep_their_positions_and_those_of_highest_worth(
    engine: Any, questions: Any, read: Any
) -> None:
    whole, norms = read(NORM, 1.0).held, read(NORM, 4.0).held
    length, start = len(questions[0].context_ids), whole.starts[0]
    for (all_keys, _), (keys, _) in zip(whole.caches[0], norms.caches[0], strict=True):
        for head, own in zip(all_keys[0], keys[0], strict=True):
            least = own[start - length :].norm(dim=1).max()
            assert (head[start - length :].norm(dim=1) <= least).sum() == own.shape[
                0
            ] - start + length
            assert all(any(torch.equal(row, full) for full in head) for row in own)
    window = read(WINDOW, 4.0).held.caches[0][0][0][0, 0]
    sinks, last = window[start - length :][:4], window[-1]
    assert torch.equal(sinks, whole.caches[0][0][0][0, 0, start - length :][:4])
    assert torch.equal(last, whole.caches[0][0][0][0, 0, -1])


def test_snapkv_reads_the_attention_of_the_base_and_leaves_it_as_it_was(
    engine: Any, read: Any
) -> None:
    usual = engine.runtime.model.decoder.config._attn_implementation
    asked, alone = read(SNAP_ASKED, 4.0).held, read(SNAP, 4.0).held
    assert engine.runtime.model.decoder.config._attn_implementation == usual
    keys = [held.caches[0][0][0] for held in (asked, alone)]
    assert keys[0].shape == keys[1].shape
    assert not torch.equal(*keys)


def test_best_chunks_hold_the_words_of_the_question_within_the_positions(
    engine: Any, questions: Any, read: Any
) -> None:
    found = read("best chunks", 3.0)
    assert "Anna" in found.texts[0]
    assert found.texts[0] != found.texts[1]
    budgets = [slot_budget(len(q.context_ids), engine.config, 3.0) for q in questions]
    assert all(own <= most for own, most in zip(found.positions, budgets, strict=True))
    assert found.read_before == 0


def test_bm25_prefers_rare_words_and_counts_repeats_less() -> None:
    texts = ["a lamp", "a lamp lamp lamp", "a net", "a town"]
    worth = bm25("A lamp?", texts)
    assert worth[1] > worth[0] > worth[2]
    assert worth[1] < 3 * worth[0]
    assert bm25("rain", texts) == [0.0] * 4


def test_a_base_whose_cache_forgets_is_refused(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icae.evals.peers.keeps_all", lambda config: False)
    with pytest.raises(InputError, match="cannot be pruned"):
        respondents(engine, [NORM])


def test_costs_count_what_is_read_beforehand(engine: Any, questions: Any, read: Any) -> None:
    from icae.evals import Qa

    price = Qa(ratios=(4.0,), input_price=2.0, output_price=0.0)
    for name in ("full context", "memory", SNAP, "best chunks"):
        own = read(name, 4.0)
        answers = own.answer(2)
        taken = own.read_before + sum(answer.prompt_tokens for answer in answers)
        assert price.cost(own, answers) == pytest.approx(2.0 * taken / 3 / 1000)
    assert read("full context", 4.0).read_before == 0
    contexts = {q.group: len(q.context_ids) for q in questions}
    assert read("memory", 4.0).read_before == sum(contexts.values())
    free = Qa(ratios=(4.0,), input_price=0.0, output_price=1000.0)
    written = np.mean([answer.answer_tokens for answer in answers])
    assert free.cost(own, answers) == pytest.approx(written)


def row(kind: str, ratio: float | None, f1: float, places: float, dataset: str = "d") -> Any:
    value = {"value": f1, "low": f1, "high": f1}
    taken = {"context_positions": places, "seconds": 1.0 + places}
    return {"kind": kind, "series": kind, "ratio": ratio, "f1": value, "dataset": dataset, **taken}


def test_who_is_ahead_of_the_memory_is_said_at_each_ratio() -> None:
    rows = [
        row("full context", None, 0.5, 64),
        *(row("memory", ratio, 0.2, 64 / ratio) for ratio in (2.0, 4.0)),
        row("key norm", 4.0, 0.2, 16),
        row("SnapKV", 4.0, 0.3, 16),
        row("first tokens", 4.0, 0.1, 16),
        row("best chunks", 4.0, 0.4, 16),
    ]
    assert standing(rows, "f1", "F1", by_dataset=True) == (
        "d, 4x: at as many positions the memory (F1 0.200) loses to best chunks (0.400), SnapKV "
        "(0.300), is level with key norm (0.200), is ahead of first tokens (0.100). "
        "The full context: 0.500."
    )
    more = [*rows, row("memory", 4.0, 0.4, 16, "e")]
    assert standing(more, "f1", "F1", by_dataset=False).startswith("4x: at as many positions the ")
    assert "(F1 0.300) loses to best chunks (0.400), is level" in standing(
        more, "f1", "F1", by_dataset=False
    )
    assert standing(rows[:3], "f1", "F1", by_dataset=True) == ""


def test_the_front_holds_what_nobody_beats_and_no_context_is_a_level_line() -> None:
    import pandas as pd
    from matplotlib.figure import Figure

    rows = [
        row("full context", None, 0.5, 64),
        row("no context", None, 0.05, 0),
        row("key norm", 4.0, 0.1, 16),
        row("key norm", 8.0, 0.12, 8),
        row("memory", 4.0, 0.2, 16),
        row("memory", 8.0, 0.15, 8),
    ]
    frame = pd.json_normalize(rows).assign(colour="C0")
    plot, other = pareto_of("f1", "F1")
    assert [name for name, _ in plot.panels(frame)] == ["d: F1 by positions"]
    axis = Figure().subplots()
    plot.draw(axis, frame)
    *lines, front = axis.get_lines()
    assert front.get_xydata().tolist() == [[8, 0.15], [16, 0.2], [64, 0.5]]
    level = next(line for line in lines if line.get_label() == "no context")
    assert set(level.get_ydata()) == {0.05}
    assert other.panels(frame.drop(columns="seconds")) == []
    plot.draw(Figure().subplots(), frame.assign(**{"f1.value": 0.0}))  # nobody got anything right
