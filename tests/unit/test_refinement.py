"""Refinement: gradient steps on slots against a frozen decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from icae.errors import ConfigError
from icae.model import PlainRow, plain_logits, token_kl, weight_hash
from icae.objectives import autoencoding
from icae.refinement import RefineConfig, RefineTask, refine
from icae.teachers import TeacherWriter


def task(model: Any, ids: Any, slots: int = 4, **more: Any) -> RefineTask:
    with torch.no_grad():
        (slots_KD,) = model.encode_spans([ids], [slots])
    return RefineTask(token_ids=ids, slots_KD=slots_KD.float().numpy(), **more)


def run(model: Any, tasks: list[RefineTask], **config: Any) -> dict[int, Any]:
    return dict(refine(model, tasks, RefineConfig(kl_weight=0.0, **config)))


def test_slots_reach_a_text_that_the_encoder_misses(model: Any, random_ids: Any) -> None:
    (found,) = run(model, [task(model, random_ids(8))], steps=80, target=1.0).values()
    assert found.history[0] < 0.5
    assert found.token_fidelity.share > found.history[0] + 0.3
    assert len(found.history) == found.steps + 1


def test_result_has_the_fidelity_that_the_decoder_shows(model: Any, random_ids: Any) -> None:
    ids = random_ids(8)
    (found,) = run(model, [task(model, ids)], steps=20, target=1.0).values()
    (score,) = model.score(
        [torch.from_numpy(found.slots_KD).to(model.dtype)], [[(8, 4)]], [autoencoding(ids)]
    )
    assert score.correct_T.numpy().tolist() == found.token_fidelity.reproduced.tolist()


def test_refined_slots_are_never_worse_than_those_before(model: Any, random_ids: Any) -> None:
    found = run(
        model, [task(model, random_ids(8, seed)) for seed in range(3)], steps=3, learning_rate=50.0
    )
    for result in found.values():
        assert result.token_fidelity.share >= result.history[0]


def test_span_leaves_as_soon_as_it_reaches_the_target(model: Any, random_ids: Any) -> None:
    (found,) = run(model, [task(model, random_ids(8))], steps=80, target=0.5).values()
    assert found.token_fidelity.share >= 0.5
    assert found.steps < 80
    assert all(share < 0.5 for share in found.history[:-1])


def test_spans_do_not_influence_each_other(model: Any, random_ids: Any) -> None:
    tasks = [task(model, random_ids(6 + i, i), slots=2 + i) for i in range(3)]
    together = run(model, tasks, steps=5, target=1.0)
    for i, own in enumerate(tasks):
        (alone,) = run(model, [own], steps=5, target=1.0).values()
        np.testing.assert_allclose(alone.slots_KD, together[i].slots_KD, atol=1e-4)


def test_small_batches_finish_every_span(model: Any, random_ids: Any) -> None:
    tasks = [task(model, random_ids(8, i)) for i in range(4)]
    found = run(model, tasks, steps=2, target=1.0, tokens_per_batch=1)
    assert sorted(found) == [0, 1, 2, 3]


def test_span_that_does_not_get_better_is_given_up(model: Any, random_ids: Any) -> None:
    (found,) = run(
        model,
        [task(model, random_ids(8))],
        steps=500,
        target=1.0,
        learning_rate=1e-9,
        patience=4,
    ).values()
    assert found.steps == 4


def test_span_too_slow_for_the_target_is_given_up(model: Any, random_ids: Any) -> None:
    own = task(model, random_ids(12), slots=1)
    (found,) = run(model, [own], steps=30, target=1.0, learning_rate=0.01, patience=10).values()
    pace = (max(found.history) - found.history[0]) / found.steps
    assert found.steps < 30
    assert found.history[0] + 30 * pace < 1.0


def test_no_weight_of_the_model_changes_and_none_has_a_gradient(
    model: Any, random_ids: Any
) -> None:
    before = weight_hash(model.decoder), {k: v.clone() for k, v in model.trainable().items()}
    run(model, [task(model, random_ids(8))], steps=3, target=1.0)
    assert weight_hash(model.decoder) == before[0]
    for name, weight in model.trainable().items():
        assert torch.equal(weight, before[1][name])
        assert weight.grad is None


def test_teachers_are_not_asked_for_without_a_kl_term(model: Any, random_ids: Any) -> None:
    def refuse() -> Any:
        raise AssertionError

    run(model, [task(model, random_ids(8), teachers=refuse)], steps=1, target=1.0)


def test_kl_term_keeps_the_slots_closer_to_the_full_context(
    model: Any, tokenizer: Any, random_ids: Any
) -> None:
    ids = random_ids(8)
    teachers = TeacherWriter(model=model, tokenizer=tokenizer, length=6).write(ids)

    def distance(slots_KD: Any) -> float:
        slots = torch.from_numpy(slots_KD).to(model.dtype)
        with torch.no_grad():
            logits = model.label_logits(
                [slots] * len(teachers), [[(8, 4)]] * len(teachers), [t.task for t in teachers]
            )
        return sum(
            float(token_kl(t.log_probs_TV, row).mean())
            for t, row in zip(teachers, logits, strict=True)
        )

    start = task(model, ids, teachers=lambda: teachers)
    alone = run(model, [start], steps=40, target=1.0)[0]
    both = dict(refine(model, [start], RefineConfig(steps=40, target=1.0, kl_weight=1.0)))[0]
    assert distance(both.slots_KD) < distance(alone.slots_KD)


def test_teachers_repeat_with_the_same_seed_and_are_what_the_plain_decoder_says(
    model: Any, tokenizer: Any, random_ids: Any
) -> None:
    ids = random_ids(8)
    writer = TeacherWriter(model=model, tokenizer=tokenizer, length=5, prompts=())
    (first,), (again,) = writer.write(ids), writer.write(ids)
    assert first.task.target_ids.tolist() == again.task.target_ids.tolist()
    row = PlainRow(ids=np.concatenate([ids, first.task.target_ids]), scored=5)
    expected = torch.log_softmax(plain_logits(model.decoder, [row])[0], dim=-1)
    torch.testing.assert_close(first.log_probs_TV.float(), expected, atol=2e-2, rtol=1e-2)


def test_plain_logits_are_those_of_the_model_called_alone(model: Any, random_ids: Any) -> None:
    rows = [PlainRow(ids=random_ids(n, n), scored=3) for n in (5, 9)]
    for row, logits_TV in zip(rows, plain_logits(model.decoder, rows), strict=True):
        with torch.no_grad():
            expected = model.decoder(torch.from_numpy(row.ids)[None]).logits[0, -4:-1]
        torch.testing.assert_close(logits_TV, expected, atol=1e-5, rtol=1e-4)


def test_kl_of_equal_distributions_is_zero_and_of_a_known_pair_is_by_hand() -> None:
    even = torch.log(torch.tensor([[0.5, 0.5]]))
    skewed = torch.log(torch.tensor([[0.9, 0.1]]))
    assert float(token_kl(even, even)) == pytest.approx(0.0, abs=1e-7)
    by_hand = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert float(token_kl(even, skewed)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"target": 0.0},
        {"target": 1.1},
        {"learning_rate": 0.0},
        {"kl_weight": -1.0},
        {"tokens_per_batch": 0},
        {"patience": 0},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        RefineConfig(**wrong)


def test_other_dtypes_of_slots_come_back_as_float32(
    build_model: Callable[..., Any], random_ids: Any
) -> None:
    (found,) = run(build_model(), [task(build_model(), random_ids(8))], steps=1).values()
    assert found.slots_KD.dtype == np.float32
