"""Refinement: gradient steps on slots against a frozen decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from icae.compression.refinement import RefineConfig, RefineTask, refine, steps_left
from icae.compression.teachers import TeacherWriter
from icae.decode.torch import TorchRuntime
from icae.decode.torch_forms import form_of
from icae.errors import ConfigError
from icae.model.base import weight_hash
from icae.model.decoder import DecoderRow, plain_logits
from icae.model.icae import Slots
from icae.model.losses import score_task, token_kl, written_and_gradient
from icae.model.objectives import autoencoding
from mixed_prefix import KEY_VALUES


def task(model: Any, ids: Any, slots: int = 4) -> RefineTask:
    (payload,) = TorchRuntime(model).encode([ids], [slots])
    return RefineTask(token_ids=ids, payload=payload)


def run(model: Any, tasks: list[RefineTask], **config: Any) -> dict[int, Any]:
    return dict(refine(form_of(model), tasks, RefineConfig(kl_weight=0.0, **config)))


@pytest.fixture(params=[{}, KEY_VALUES], ids=["slots", "key-values"])
def either(request: pytest.FixtureRequest, build_model: Any) -> Any:
    """A model of each form."""
    return build_model(**request.param)


def test_slots_reach_a_text_that_the_encoder_misses(either: Any, random_ids: Any) -> None:
    config = {"steps": 80, "target": 1.0, "learning_rate": 0.3, "slack": np.inf}
    (found,) = run(either, [task(either, random_ids(8))], **config).values()
    assert found.history[0] < 0.5
    assert found.token_fidelity.share > found.history[0] + 0.3
    assert len(found.history) == found.steps + 1
    assert found.payload.numbers.dtype == np.float32


def test_result_has_the_fidelity_that_the_decoder_shows(either: Any, random_ids: Any) -> None:
    ids = random_ids(8)
    (found,) = run(either, [task(either, ids)], steps=20, target=1.0).values()
    (fidelity,) = TorchRuntime(either).fidelity([found.payload], [ids])
    assert fidelity.reproduced.tolist() == found.token_fidelity.reproduced.tolist()
    (again,) = run(either, [RefineTask(token_ids=ids, payload=found.payload)], steps=1).values()
    assert again.history[0] == found.token_fidelity.share


def test_upper_layers_alone_change_and_the_lower_ones_keep_their_numbers(
    build_model: Any, random_ids: Any
) -> None:
    model = build_model(**KEY_VALUES)
    own = task(model, random_ids(8))
    (found,) = run(model, [own], steps=2, target=1.0, slack=np.inf, patience=9).values()
    before, after = own.payload.numbers, found.payload.numbers
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    assert np.abs(after[:, 1] - before[:, 1]).min() > 0


def test_refined_slots_are_never_worse_than_those_before(either: Any, random_ids: Any) -> None:
    tasks = [task(either, random_ids(8, seed)) for seed in range(3)]
    found = run(either, tasks, steps=3, learning_rate=50.0)
    for result in found.values():
        assert result.token_fidelity.share >= result.history[0]


def test_span_leaves_as_soon_as_it_reaches_the_target(model: Any, random_ids: Any) -> None:
    own = task(model, random_ids(8))
    (found,) = run(model, [own], steps=80, target=0.5, margin=0.0).values()
    assert found.token_fidelity.share >= 0.5
    assert found.steps < 80
    assert all(share < 0.5 for share in found.history[:-1])


def test_span_leaves_only_when_its_tokens_lead_by_the_margin(model: Any, random_ids: Any) -> None:
    own = task(model, random_ids(8), slots=8)
    leads = {}
    for margin in (0.0, 2.0):
        config = {"steps": 200, "target": 1.0, "margin": margin, "patience": 200, "slack": np.inf}
        (found,) = run(model, [own], **config).values()
        (logits_TV,) = model.label_logits(
            [
                Slots(
                    slots_KD=torch.from_numpy(found.payload.numbers).to(model.dtype), spans=[(8, 8)]
                )
            ],
            [autoencoding(own.token_ids)],
        )
        leads[margin] = written_and_gradient(logits_TV.detach(), own.token_ids)[0].lead_T.numpy()
        assert found.steps < 200
    assert leads[2.0].min() >= 2.0 > leads[0.0].min() >= 0.0


def test_what_was_written_and_its_gradient_are_those_of_the_cross_entropy() -> None:
    logits_TV = torch.randn(5, 7).mul(3).bfloat16().float()
    logits_TV[0] = torch.tensor([1.0, 4.0, 2.5, 0.0, 0.0, 0.0, 0.0])
    logits_TV[1, 2] = logits_TV[1, 4] = 9.0  # a tie: the first one is written
    logits_TV[2, 4], logits_TV[3, 0] = -200.0, 200.0  # beyond what a float's exponential holds
    task = autoencoding(np.array([1, 4, 4, 0, 6]))
    logits_TV.requires_grad_()
    expected = score_task(logits_TV, task)
    (gradient_TV,) = torch.autograd.grad(expected.loss_sum, logits_TV)
    written, found_TV = written_and_gradient(logits_TV.detach().clone(), task.target_ids)
    torch.testing.assert_close(found_TV, gradient_TV)
    torch.testing.assert_close(written.log_probs_T, expected.log_probs_T)
    assert written.correct_T.tolist() == expected.correct_T.tolist()
    assert written.lead_T[:2].tolist() == [1.5, 0.0]
    assert (written.lead_T[2:] > 0).tolist() == expected.correct_T[2:].tolist()


@pytest.mark.parametrize(
    ("losses", "target", "expected"),
    [
        ([1.6, 0.8, 0.4], 1.0, 1.0),  # halves each step: 0.2 is one step away
        ([1.6, 0.8, 0.4], 0.95, 0.0),  # 5 % may be missed: 0.4 is enough
        ([3.0] + [6.4] * 2 + [3.2 * 2 ** (-n / 10) for n in range(11)], 1.0, 30.0),
        ([2.0, 2.0], 1.0, np.inf),
        ([2.0], 1.0, np.inf),
    ],
)
def test_steps_left_follow_the_pace_of_the_last_losses(
    losses: list[float], target: float, expected: float
) -> None:
    assert steps_left(losses, target) == pytest.approx(expected)


def test_teachers_are_asked_for_once_and_only_for_spans_behind_the_probe_with_a_kl_term(
    model: Any, tokenizer: Any, random_ids: Any
) -> None:
    asked: list[int] = []
    writer = TeacherWriter(decoder=model.decoder, tokenizer=tokenizer, length=2)

    def teach(contexts: Any) -> Any:
        asked.append(len(contexts))
        return writer.write(contexts)

    hopeless = task(model, random_ids(16), slots=1)
    config = RefineConfig(steps=30, target=1.0, probe=5, learning_rate=0.01)
    (found,) = dict(refine(form_of(model), [hopeless], config, teach=teach)).values()
    assert found.steps == 5
    tasks = [task(model, random_ids(8, i), slots=8) for i in range(3)]
    without_kl = RefineConfig(steps=1, target=1.0, kl_weight=0.0)
    dict(refine(form_of(model), tasks, without_kl, teach=teach))
    assert asked == []
    config = RefineConfig(steps=4, target=1.0, probe=2, slack=np.inf)
    dict(refine(form_of(model), tasks, config, teach=teach))
    assert asked == [3]


def test_every_step_is_reported_and_what_a_finished_span_saved(model: Any, random_ids: Any) -> None:
    seen: list[tuple[int, int]] = []
    tasks = [task(model, random_ids(8, i)) for i in range(2)]
    config = RefineConfig(steps=6, target=1.0, kl_weight=0.0, probe=6)
    dict(
        refine(
            form_of(model), tasks, config, on_step=lambda done, total: seen.append((done, total))
        )
    )
    assert [total for _, total in seen] == [12] * len(seen)
    assert seen[0][0] > 0
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (12, 12)


def test_spans_do_not_influence_each_other_in_batches_of_any_size(
    either: Any, random_ids: Any
) -> None:
    tasks = [task(either, random_ids(6 + i, i), slots=2 + i) for i in range(3)]
    together = run(either, tasks, steps=5, target=1.0)
    one_by_one = run(either, tasks, steps=5, target=1.0, tokens_per_batch=1)
    assert sorted(together) == sorted(one_by_one) == [0, 1, 2]
    for i, found in together.items():
        np.testing.assert_allclose(one_by_one[i].payload.numbers, found.payload.numbers, atol=1e-4)


def test_span_that_does_not_get_better_is_given_up(model: Any, random_ids: Any) -> None:
    config = {"steps": 500, "target": 1.0, "learning_rate": 1e-9, "patience": 4, "slack": np.inf}
    (found,) = run(model, [task(model, random_ids(8))], **config).values()
    assert found.steps == 4


def test_no_weight_of_the_model_changes_and_none_has_a_gradient(
    either: Any, random_ids: Any
) -> None:
    before = weight_hash(either.decoder), {k: v.clone() for k, v in either.trainable().items()}
    run(either, [task(either, random_ids(8))], steps=3, target=1.0)
    assert either.decoder.config._attn_implementation == "sdpa"
    assert weight_hash(either.decoder) == before[0]
    for name, weight in either.trainable().items():
        assert torch.equal(weight, before[1][name])
        assert weight.grad is None


def test_kl_term_keeps_the_slots_closer_to_the_full_context(
    model: Any, tokenizer: Any, random_ids: Any
) -> None:
    ids = random_ids(8)
    teachers = TeacherWriter(decoder=model.decoder, tokenizer=tokenizer, length=6).write([ids])

    def distance(slots_KD: Any) -> float:
        slots = Slots(slots_KD=torch.from_numpy(slots_KD).to(model.dtype), spans=[(8, 4)])
        with torch.no_grad():
            logits = model.label_logits([slots] * len(teachers), [t.task for t in teachers])
        return sum(
            float(token_kl(t.log_probs_TV, row).mean())
            for t, row in zip(teachers, logits, strict=True)
        )

    start = task(model, ids)
    alone = run(model, [start], steps=40, target=1.0, slack=np.inf)[0]
    config = RefineConfig(steps=40, target=1.0, kl_weight=1.0, probe=0, slack=np.inf)
    both = dict(refine(form_of(model), [start], config, teach=lambda contexts: teachers))[0]
    assert distance(both.payload.numbers) < distance(alone.payload.numbers)


def test_teachers_repeat_with_the_same_seed_and_are_what_the_plain_decoder_says(
    model: Any, tokenizer: Any, random_ids: Any
) -> None:
    ids = random_ids(8)
    writer = TeacherWriter(decoder=model.decoder, tokenizer=tokenizer, length=5)
    (first,) = writer.write([ids])
    _, again = writer.write([random_ids(8, 1), ids])
    assert first.task.target_ids.tolist() == again.task.target_ids.tolist()
    row = DecoderRow.plain(np.concatenate([ids, first.task.target_ids]), scored=5)
    expected = torch.log_softmax(plain_logits(model.decoder, [row])[0], dim=-1)
    torch.testing.assert_close(first.log_probs_TV.float(), expected, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize(
    "wrong",
    [{"target": 0.0}, {"target": 1.1}, {"steps": 0}, {"kl_weight": -1.0}, {"learning_rate": 0.0}],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        RefineConfig(**wrong)
