from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.config import ObjectiveConfig
from icae.config.data import RatioStage
from icae.config.spans import plan_spans
from icae.errors import TrainingError
from icae.model.objectives import Sample, instruction
from icae.train.instructions import (
    MIN_CONTEXT,
    InstructionSource,
    TokenizedTriplet,
    TripletSet,
)
from icae.train.sampling import SampleSource, draw_window, own_share, text_sample

IDS = np.arange(2, 22)


def flat(samples: list[Sample]) -> list[Any]:
    return [
        (s.context_ids.tolist(), s.ratio, [(t.objective, t.target_ids.tolist()) for t in s.tasks])
        for s in samples
    ]


def triplets(count: int) -> InstructionSource:
    found = tuple(
        TokenizedTriplet(context_ids=IDS + seed, tasks=(instruction(IDS[:3], IDS[:2]),))
        for seed in range(count)
    )
    return InstructionSource([TripletSet(name="t", weight=1.0, triplets=found)])


def test_same_seed_and_step_give_the_same_samples(tiny: Any) -> None:
    shards = tiny.shards()
    first, second = (SampleSource(tiny.recipe(), shards) for _ in range(2))
    first.draw(0)  # a source that has drawn before must not drift
    assert flat(first.draw(3)) == flat(second.draw(3)) != flat(first.draw(2))
    reseeded = SampleSource(tiny.recipe(optim={"seed": 1}), shards)
    assert flat(first.draw(3)) != flat(reseeded.draw(3))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.375, 1.0])
def test_instruction_share_is_exact_over_many_steps(tiny: Any, share: float) -> None:
    recipe = tiny.recipe(objective={"ft_share": share}, optim={"batch_size": 4})
    source = SampleSource(recipe, tiny.shards(), triplets(1))
    kinds: Counter[str] = Counter()
    for step in range(40):
        drawn = source.draw(step)
        assert len(drawn) == 4
        count = sum(s.tasks[0].objective == "ft" for s in drawn)
        assert abs(count - 4 * share) < 1
        kinds["ft"] += count
    assert kinds["ft"] == round(160 * share)


def test_windows_are_stretches_of_one_document_each(tiny: Any) -> None:
    lengths = [30, 9, 55, 12, 3, 40]
    shards, rng, seen = tiny.shards(lengths), np.random.default_rng(0), set()
    bounds = np.cumsum([0, *lengths])
    documents = [shards.read(a, b).tolist() for a, b in itertools.pairwise(bounds.tolist())]
    for _ in range(300):
        context, after = draw_window(rng, shards, 16, 4)
        both = [*context, *after]
        homes = [
            d
            for d, ids in enumerate(documents)
            if any(ids[i : i + len(both)] == both for i in range(len(ids)))
        ]
        assert len(homes) == 1
        seen.add(homes[0])
    assert seen == {0, 1, 2, 3, 5}, "document 4 is too short, every other one is drawn"


@pytest.mark.parametrize("length", [MIN_CONTEXT + 1, 12, 19])
def test_short_documents_are_used_whole_and_keep_something_to_predict(
    tiny: Any, length: int
) -> None:
    shards = tiny.shards([length])
    context, after = draw_window(np.random.default_rng(0), shards, 16, 4)
    assert MIN_CONTEXT <= len(context) <= 16
    assert 1 <= len(after) <= 4
    assert [*context, *after] == shards.read(0, length).tolist()


def test_shards_with_only_tiny_documents_are_refused(tiny: Any) -> None:
    with pytest.raises(TrainingError, match="no usable document"):
        draw_window(np.random.default_rng(0), tiny.shards([MIN_CONTEXT] * 5), 16, 4)


def test_context_longer_than_a_span_becomes_a_multi_span_sample(tiny: Any) -> None:
    recipe = tiny.recipe(data={"context_lengths": {40: 1.0}})
    samples = SampleSource(recipe, tiny.shards([200])).draw(0)
    plans = plan_spans(len(samples[0].context_ids), span_length=16, ratio=samples[0].ratio)
    assert [p.length for p in plans] == [16, 16, 8]
    scores = tiny.model()(samples[:1])
    assert [(s.objective, s.labels) for s in scores] == [("ae", 40), ("lm", 4)]


def test_context_lengths_are_mixed_by_weight_one_for_each_step(tiny: Any) -> None:
    recipe = tiny.recipe(data={"context_lengths": {16: 3.0, 32: 1.0}})
    source = SampleSource(recipe, tiny.shards([200]))
    steps = [{len(s.context_ids) for s in source.draw(step)} for step in range(400)]
    assert all(len(lengths) == 1 for lengths in steps)
    assert set.union(*steps) == {16, 32}
    assert steps.count({32}) / 400 == pytest.approx(0.25, abs=0.07)


def test_curriculum_stages_switch_at_their_share_of_the_run(tiny: Any) -> None:
    stages = (
        RatioStage(until=0.3, ratios={1.0: 1.0}),
        RatioStage(until=0.5, ratios={2.0: 1.0}),
        RatioStage(until=1.0, ratios={4.0: 1.0}),
    )
    recipe = tiny.recipe(data={"ratio_curriculum": stages}, optim={"steps": 10})
    source = SampleSource(recipe, tiny.shards())
    ratios = [{s.ratio for s in source.draw(step)} for step in range(11)]
    assert ratios == [{1.0}] * 3 + [{2.0}] * 2 + [{4.0}] * 6


@pytest.mark.parametrize(
    ("weight", "objectives"), [(1.0, ["ae"]), (0.0, ["lm"]), (0.5, ["ae", "lm"])]
)
def test_only_objectives_with_weight_become_tasks(weight: float, objectives: list[str]) -> None:
    sample = text_sample(IDS[:10], IDS[10:], 2.0, ObjectiveConfig(ae_weight=weight))
    assert [t.objective for t in sample.tasks] == objectives


@settings(deadline=None)
@given(size=st.integers(1, 40), world=st.integers(1, 9))
def test_shares_of_the_processes_are_the_whole_step_without_overlap(size: int, world: int) -> None:
    ids = np.arange(3)
    samples = [Sample(context_ids=ids, ratio=float(i), tasks=()) for i in range(1, size + 1)]
    shares = [own_share(samples, rank=rank, world=world) for rank in range(world)]
    drawn = sorted(sample.ratio for share in shares for sample in share)
    assert drawn == [float(i) for i in range(1, size + 1)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_processes_get_about_as_much_work() -> None:
    lengths = [224, 8, 200, 16, 160, 24, 190, 32, 96, 20]
    samples = [Sample(context_ids=np.arange(n), ratio=4.0, tasks=()) for n in lengths]
    shares = [own_share(samples, rank=rank, world=2) for rank in range(2)]
    work = [sum(len(s.context_ids) for s in share) for share in shares]
    assert max(work) <= 1.2 * min(work)
