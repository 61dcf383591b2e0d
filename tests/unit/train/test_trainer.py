from __future__ import annotations

import math
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from icae.config import OptimConfig
from icae.config.data import RatioStage
from icae.errors import TrainingError
from icae.train.evaluate import Evaluation
from icae.train.records import read_records
from icae.train.sampling import SampleSource
from icae.train.trainer import Trainer, catch_signals, learning_rate_share


def watch_steps(trainer: Trainer) -> list[dict[str, Any]]:
    """What the optimizer sees at every update: rates, and gradients as they are applied."""
    seen: list[dict[str, Any]] = []

    def look(optimizer: Any, args: Any, kwargs: Any) -> None:
        grads = {n: p.grad.clone() for n, p in trainer.model.trainable().items()}
        norm = math.sqrt(sum(float(g.pow(2).sum()) for g in grads.values()))
        rates = [g["lr"] for g in optimizer.param_groups]
        seen.append({"grads": grads, "norm": norm, "rates": rates})

    trainer.optimizer.register_step_pre_hook(look)
    return seen


def logged(recipe: Any, kind: str = "train") -> list[dict[str, Any]]:
    records = read_records(Path(recipe.run.output) / "metrics.jsonl")
    timing = ("seconds", "tokens_per_second")
    return [{k: v for k, v in r.items() if k not in timing} for r in records if r["kind"] == kind]


def test_learning_rate_warms_up_and_follows_a_cosine_to_its_floor() -> None:
    config = OptimConfig(steps=12, warmup_steps=4)
    shares = [learning_rate_share(config, step) for step in range(13)]
    assert shares[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert shares[6] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert shares[8] == pytest.approx(0.55)
    assert shares[12] == pytest.approx(0.1)
    assert learning_rate_share(config, 40) == pytest.approx(0.1)


def test_lora_a_and_b_and_tokens_with_head_follow_the_schedule_at_their_own_rates(
    tiny: Any,
) -> None:
    recipe = tiny.recipe(optim={"steps": 4, "warmup_steps": 2, "lora_b_multiplier": 8.0})
    trainer = Trainer(recipe, tiny.model(), tiny.source([tiny.sample()]))
    seen = watch_steps(trainer)
    trainer.run()
    for group, peak in enumerate((1e-3, 8e-3, 5e-3)):
        rates = [s["rates"][group] for s in seen]
        assert rates == pytest.approx([peak * share for share in (0.5, 1.0, 1.0, 0.55)])
    names = {id(p): name for name, p in trainer.model.trainable().items()}
    groups = [[names.pop(id(p)) for p in g["params"]] for g in trainer.optimizer.param_groups]
    assert not names
    assert all(".lora_A." in name for name in groups[0])
    assert all(".lora_B." in name for name in groups[1])
    assert len(groups[0]) == len(groups[1]) == 2 * 2  # two layers, two projections
    assert {name.split(".")[0] for name in groups[2]} == {"tokens", "head"}


def test_micro_batches_give_the_update_of_one_batch(tiny: Any) -> None:
    samples = [tiny.sample(n, seed=n) for n in (4, 16, 9, 30)]
    model = tiny.model()
    scores = model(samples)
    (sum(s.loss_sum for s in scores) / sum(s.labels for s in scores)).backward()
    expected = {n: p.grad for n, p in model.trainable().items()}
    for size in (1, 2, 4):
        recipe = tiny.recipe(
            objective={"ae_weight": 1.0},
            optim={"steps": 1, "micro_batch_size": size, "clip_norm": 1e9},
            run={"output": f"{tiny.recipe().run.output}-{size}"},
        )
        trainer = Trainer(recipe, tiny.model(), tiny.source(samples))
        seen = watch_steps(trainer)
        trainer.run()
        for name, grad in seen[0]["grads"].items():
            torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)
        mean = sum(float(s.loss_sum.detach()) for s in scores) / 59
        assert logged(recipe)[0]["ae_loss"] == pytest.approx(mean, rel=1e-5)


def test_recipe_says_whether_layers_are_compiled(tiny: Any) -> None:
    compiled = []
    for setting in ("none", "layers"):
        model = tiny.model()
        Trainer(tiny.recipe(run={"compile": setting}), model, tiny.source([tiny.sample()]))
        compiled.append(sum(m._compiled_call_impl is not None for m in model.modules()))
    assert compiled == [0, 2]


def test_gradients_are_clipped_to_the_norm(tiny: Any) -> None:
    recipe = tiny.recipe(optim={"steps": 2, "clip_norm": 0.01})
    trainer = Trainer(recipe, tiny.model(), tiny.source([tiny.sample()]))
    seen = watch_steps(trainer)
    trainer.run()
    assert [s["norm"] for s in seen] == pytest.approx([0.01, 0.01], rel=1e-3)
    assert all(r["grad_norm"] > 0.1 for r in logged(recipe)), "the norm before clipping is logged"


def test_loss_that_is_not_finite_stops_the_run_before_the_update(tiny: Any) -> None:
    model = tiny.model()
    with torch.no_grad():
        model.tokens.objective_ND[0] = math.nan
    before = model.tokens.memory_ND.detach().clone()
    trainer = Trainer(tiny.recipe(), model, tiny.source([tiny.sample()]))
    with pytest.raises(TrainingError, match="not finite at step 0"):
        trainer.run()
    assert torch.equal(model.tokens.memory_ND, before)


def resumable(tiny: Any, name: str, **run: Any) -> Any:
    stages = (RatioStage(until=0.5, ratios={1.0: 1.0, 2.0: 1.0}), RatioStage(ratios={4.0: 1.0}))
    return tiny.recipe(
        data={"context_lengths": {16: 2.0, 24: 1.0}, "ratio_curriculum": stages},
        optim={"steps": 6, "micro_batch_size": 2},
        run={"output": f"{tiny.recipe().run.output}-{name}", "eval_every": 2, **run},
    )


@pytest.mark.parametrize("resumed", [[3, None], [4, None], [None, None]])
def test_stopped_and_resumed_run_equals_an_uninterrupted_one(tiny: Any, resumed: Any) -> None:
    shards, outcomes = tiny.shards(), []
    for name, stops in (("whole", [None]), ("stopped", resumed)):
        recipe = resumable(tiny, name)
        best: list[Any] = []
        for stop in stops:
            model = tiny.model()
            trainer = Trainer(
                recipe,
                model,
                SampleSource(recipe, shards, []),
                evaluation=Evaluation(recipe, shards),
                on_best=lambda step, metrics, best=best: best.append((step, metrics)),
                stop_at=stop,
            )
            with nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
                trainer.run()
        assert trainer.step == 6
        state = trainer.optimizer.state_dict()["state"]
        outcomes.append((model.trainable(), state, recipe, best, trainer.metrics))
    (weights, state, recipe, best, metrics), (weights2, state2, recipe2, best2, metrics2) = outcomes
    assert weights.keys() == weights2.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, weights2[name]), name
    assert all(torch.equal(state[k][m], state2[k][m]) for k in state for m in state[k])
    assert logged(recipe) == logged(recipe2)
    assert logged(recipe, "eval") == logged(recipe2, "eval")
    assert [r["step"] for r in logged(recipe, "eval")] == [2, 4, 6]
    assert best == best2
    assert metrics == metrics2


def test_best_is_reported_only_when_held_out_loss_falls(tiny: Any) -> None:
    class Falling:
        losses = iter([3.0, 5.0, 2.0, 2.0])

        def run(self, model: Any) -> dict[str, float]:
            return {"ae_loss": next(self.losses)}

    best: list[int] = []
    Trainer(
        tiny.recipe(optim={"steps": 4}, run={"eval_every": 1}),
        tiny.model(),
        tiny.source([tiny.sample()]),
        evaluation=Falling(),  # type: ignore[arg-type]
        on_best=lambda step, metrics: best.append(step),
    ).run()
    assert best == [1, 3]


def test_signal_sets_the_event_and_the_second_one_interrupts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with catch_signals() as event:
        assert not event.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert event.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_figures_are_means_over_the_steps_since_the_last_line(tiny: Any) -> None:
    shards = tiny.shards()
    lines = {}
    for every in (1, 3):
        recipe = tiny.recipe(
            objective={"ae_weight": 0.0},
            optim={"steps": 4},
            run={"log_every": every, "output": f"{tiny.recipe().run.output}-{every}"},
        )
        Trainer(recipe, tiny.model(), SampleSource(recipe, shards, [])).run()
        lines[every] = logged(recipe)
    assert [r["step"] for r in lines[3]] == [3, 4]
    single = [r["lm_loss"] for r in lines[1]]
    assert lines[3][0]["lm_loss"] == pytest.approx(sum(single[:3]) / 3)
    assert lines[3][1]["lm_loss"] == pytest.approx(single[3])
