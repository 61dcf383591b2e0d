from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from icae.errors import TrainingError
from icae.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from icae.train.trainer import build_optimizer


@pytest.fixture
def run(tiny: Any) -> Any:
    """Model and optimizer after one update, and their recipe."""
    model, recipe = tiny.model(), tiny.recipe()
    optimizer = build_optimizer(model, recipe.optim)
    model([tiny.sample()])[0].loss_sum.backward()
    optimizer.step()
    return model, optimizer, recipe


def save(folder: Path, run: Any, step: int = 3) -> Path:
    model, optimizer, recipe = run
    return save_checkpoint(folder, model, optimizer, step=step, recipe=recipe, seconds=1.5)


def load_fresh(tiny: Any, path: Path, recipe: Any) -> Any:
    model = tiny.model()
    optimizer = build_optimizer(model, recipe.optim)
    return load_checkpoint(path, model, optimizer, recipe), model, optimizer


def test_checkpoint_restores_weights_optimizer_step_and_time(
    tiny: Any, tmp_path: Path, run: Any
) -> None:
    done, model, optimizer = load_fresh(tiny, save(tmp_path, run), run[2])
    assert done == (3, 1.5)
    for name, weight in run[0].trainable().items():
        assert torch.equal(weight, model.trainable()[name]), name
    before, after = run[1].state_dict()["state"], optimizer.state_dict()["state"]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k][m], after[k][m]) for k in before for m in before[k])


def test_failed_write_leaves_the_older_checkpoint(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = save(tmp_path, run)

    def fail(state: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, run, 4)
    assert newest_checkpoint(tmp_path) == whole


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, run: Any, keep: int) -> None:
    model, optimizer, recipe = run
    recipe = replace(recipe, run=replace(recipe.run, keep_checkpoints=keep))
    assert newest_checkpoint(tmp_path) is None
    for step in (8, 10, 9, 7):
        save(tmp_path, (model, optimizer, recipe), step)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["step-00000009.pt", "step-00000010.pt"][-keep:]
    assert newest_checkpoint(tmp_path) == tmp_path / "step-00000010.pt"


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage"])
def test_damaged_checkpoint_is_refused(tiny: Any, tmp_path: Path, run: Any, damage: str) -> None:
    path = save(tmp_path, run)
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "garbage": b"x" * 500}[damage])
    with pytest.raises(TrainingError, match="damaged") as caught:
        load_fresh(tiny, path, run[2])
    assert "Delete it" in str(caught.value)


@pytest.mark.parametrize("part", ["optim", "data", "model", "objective"])
def test_another_recipe_is_refused_and_the_changed_part_is_named(
    tiny: Any, tmp_path: Path, run: Any, part: str
) -> None:
    path = save(tmp_path, run)
    changes = {
        "optim": {"learning_rate": 2e-3},
        "data": {"continuation_length": 5},
        "model": {"layout": "default"},
        "objective": {"ae_weight": 0.6},
    }
    with pytest.raises(TrainingError, match=f"a different {part}\n"):
        load_fresh(tiny, path, tiny.recipe(**{part: changes[part]}))


def test_what_a_run_is_called_where_it_writes_and_how_long_it_is_may_change(
    tiny: Any, tmp_path: Path, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny.recipe(name="renamed", description="new", run={"log_every": 7, "output": "x"})
    longer = replace(recipe, optim=replace(recipe.optim, steps=50))
    done, _, _ = load_fresh(tiny, save(tmp_path, run), longer)
    assert done == (3, 1.5)
    assert f"begun with {recipe.optim.steps} steps, it goes on to 50" in caplog.text
    with pytest.raises(TrainingError, match=r"step 60, optim\.steps 50"):
        load_fresh(tiny, save(tmp_path, run, step=60), longer)


def test_checkpoint_of_other_weights_is_refused(tiny: Any, tmp_path: Path, run: Any) -> None:
    path = save(tmp_path, run)
    model = tiny.model(slot_head="plain")
    with pytest.raises(TrainingError, match="does not fit"):
        load_checkpoint(path, model, build_optimizer(model, run[2].optim), run[2])
