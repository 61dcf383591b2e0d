from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from icae.config import Recipe
from icae.config.data import TripletFile
from icae.config.parsing import to_dict
from icae.errors import AdapterError, InputError, TrainingError
from icae.model.adapter import load_trained, model_class
from icae.model.adapter_files import FULL_CONTEXT, RIVAL, adapter_hash, read_info
from icae.model.base import load_decoder, load_tokenizer
from icae.model.base_files import tokenizer_hash
from icae.model.full_context import FullContextModel
from icae.train import train
from icae.train.checkpoint import newest_checkpoint
from icae.train.records import read_records


@pytest.fixture
def pretraining(tiny: Any, tiny_base: str) -> Callable[..., Recipe]:
    """``pretraining(run={...}, ...)``: a recipe of two steps on the tiny base."""
    packed = tokenizer_hash(load_tokenizer(tiny_base))
    shards = tiny.shards(tokenizer_hash=packed)
    held_out = tiny.shards(name="held-out", tokenizer_hash=packed, seed=1)

    def build(*, data: Any = None, optim: Any = None, **sections: Any) -> Recipe:
        folders = {"shards": str(shards.folder), "eval_shards": str(held_out.folder)}
        recipe: Recipe = tiny.recipe(
            **{"base": tiny_base, **sections},
            data={**folders, **(data or {})},
            optim={"steps": 2, **(optim or {})},
        )
        return recipe

    return build


@pytest.fixture
def triplets(tmp_path: Path) -> str:
    path = tmp_path / "questions.jsonl"
    rows = [
        {
            "context": " ".join(f"w{2 + 3 * i + j}" for j in range(12)),
            "prompt": "w5 w6",
            "answer": f"w{10 + i}",
        }
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def own_weights(adapter: Path) -> dict[str, torch.Tensor]:
    return {
        **load_file(adapter / "icae.safetensors"),
        **load_file(adapter / "lora" / "adapter_model.safetensors"),
    }


def test_pretraining_writes_a_complete_adapter(pretraining: Any, tiny_base: str) -> None:
    recipe = pretraining(description="A tiny run.", run={"eval_every": 1})
    result = train(recipe, stage="pretrain")
    files = {str(p.relative_to(result.adapter)) for p in result.adapter.rglob("*") if p.is_file()}
    assert files == {
        "README.md",
        "icae.json",
        "icae.safetensors",
        "lora/adapter_config.json",
        "lora/adapter_model.safetensors",
    }
    info = read_info(result.adapter)
    assert info.model == recipe.model
    assert info.ratios == (2.0, 4.0)
    assert info.data == {"made up": "205 tokens"}
    assert info.recipe == json.loads(json.dumps(to_dict(recipe)))
    assert info.metrics["ae_loss"] == result.metrics["ae_loss"]
    assert info.metrics["step"] == 2
    card = (result.adapter / "README.md").read_text(encoding="utf-8")
    for text in ("# tiny", "A tiny run.", "made up: 205 tokens", "ae_loss", "2x, 4x"):
        assert text in card
    assert result.plot.read_bytes()[:4] == b"\x89PNG"
    assert result.steps == 2
    folder = Path(recipe.run.output)
    held_out = [r for r in read_records(folder / "metrics.jsonl") if r["kind"] == "eval"]
    best = min(held_out, key=lambda r: r["ae_loss"])
    assert read_info(folder / "best").metrics["step"] == best["step"]


def test_fine_tuning_starts_from_the_pretrained_adapter(
    pretraining: Any, triplets: str, tmp_path: Path
) -> None:
    first = train(pretraining(), stage="pretrain")
    recipe = pretraining(
        init_adapter=str(first.adapter),
        data={"triplets": (TripletFile(path=triplets),)},
        objective={"ft_share": 0.5},
        optim={"learning_rate": 1e-12, "token_learning_rate": 1e-12},
        run={"output": str(tmp_path / "tuned")},
    )
    second = train(recipe, stage="finetune")
    before, after = own_weights(first.adapter), own_weights(second.adapter)
    assert before.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-9)
    assert any(w.abs().max() > 1e-4 for n, w in before.items() if "lora_B" in n)
    data = read_info(second.adapter).data
    assert data["questions.jsonl"] == "4 triplets"
    assert len(data["started from adapter"]) == 16
    last = read_records(tmp_path / "tuned" / "metrics.jsonl")[0]
    assert {"ae_loss", "lm_loss", "ft_loss"} <= last.keys()


ASKED = {"ft_share": 0.5}
FULL = {"ft_share": 1.0, "reader": "full-context"}
GIST = {"reader": "gist"}


@pytest.mark.parametrize(
    ("stage", "sections", "message"),
    [
        ("pretrain", {"objective": ASKED}, "has instruction samples"),
        ("finetune", {"objective": ASKED}, "starts from a pretrained adapter"),
        ("finetune", {"init_adapter": "unused"}, "has no instruction samples"),
        ("finetune", {"objective": ASKED, "data": {"triplets": ()}}, "has no instruction samples"),
        ("finetune", {"objective": {**FULL, **ASKED}}, "on instructions alone"),
        ("finetune", {"objective": FULL, "init_adapter": "x"}, "starts from the base model"),
        ("pretrain", {"objective": GIST, "run": {"compile": "layers"}}, "is trained as it is"),
        ("pretrain", {"objective": GIST, "run": {"gradient_checkpointing": True}}, "trained as it"),
        ("pretrain", {"objective": GIST, "run": {"sharing": "frozen-shards"}}, "trained as it is"),
        ("pretrain", {"data": {"shards": ""}}, "names no token shards"),
        ("pretrain", {"data": {"shards": "nothing"}}, "not a usable set of token shards"),
        ("pretrain", {"data": {"shards": "other"}}, "packed with another tokenizer"),
        ("pretrain", {"data": {"eval_shards": "other"}}, "packed with another tokenizer"),
        ("pretrain", {"data": {"context_lengths": {200: 1}}}, "do not fit the window"),
        ("pretrain", {"data": {"continuation_length": 250}}, "do not fit the window"),
    ],
)
def test_a_recipe_without_what_its_run_needs_is_refused(
    tiny: Any,
    pretraining: Any,
    triplets: str,
    monkeypatch: pytest.MonkeyPatch,
    stage: Any,
    sections: dict[str, Any],
    message: str,
) -> None:
    tiny.shards(name="other", tokenizer_hash="another")
    monkeypatch.chdir(tiny.folder)
    data = {"triplets": (TripletFile(path=triplets),), **sections.get("data", {})}
    with pytest.raises((TrainingError, InputError), match=message):
        train(pretraining(**{**sections, "data": data}), stage=stage)


def test_a_run_does_not_start_from_another_base_or_method(
    pretraining: Any, other_base: str, tmp_path: Path
) -> None:
    for first, then in (
        ({}, {"base": other_base}),
        ({"objective": GIST}, {"objective": {"reader": "autocompressor"}}),
    ):
        start = train(pretraining(**first, run={"output": str(tmp_path / "1")}), stage="pretrain")
        recipe = pretraining(
            **then, init_adapter=str(start.adapter), run={"output": str(tmp_path / "2")}
        )
        with pytest.raises(TrainingError, match="another method, or was trained on another base"):
            train(recipe, stage="pretrain")
        shutil.rmtree(tmp_path / "1")


def test_dry_run_writes_beside_the_run_and_starts_afresh_each_time(pretraining: Any) -> None:
    recipe = pretraining(optim={"steps": 1000})
    for steps in (1, 2, 2):
        result = train(recipe, stage="pretrain", dry_run_steps=steps)
        folder = Path(f"{recipe.run.output}-dry-run")
        assert result.adapter == folder / "adapter"
        assert result.steps == steps
        records = read_records(folder / "metrics.jsonl")
        assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, steps + 1))
    assert not Path(recipe.run.output).exists()


@pytest.fixture
def reading(
    pretraining: Callable[..., Recipe], triplets: str, tmp_path: Path
) -> Callable[..., Recipe]:
    """``reading(objective={...})``: a recipe that trains a full-context reader."""

    def build(*, objective: Any = None, **sections: Any) -> Recipe:
        return pretraining(
            data={"triplets": (TripletFile(path=triplets),), "shards": ""},
            objective={"ft_share": 1.0, "reader": "full-context", **(objective or {})},
            run={"output": str(tmp_path / "upper")},
            **sections,
        )

    return build


def test_a_full_context_reader_is_trained_on_the_same_triplets(
    reading: Any, tiny_base: str, tmp_path: Path
) -> None:
    result = train(reading(optim={"steps": 8, "learning_rate": 0.02}), stage="finetune")
    info = read_info(result.adapter, FULL_CONTEXT)
    assert info.data == {"questions.jsonl": "4 triplets"}
    assert info.metrics["step"] == 8
    losses = [r["ft_loss"] for r in read_records(tmp_path / "upper" / "metrics.jsonl")]
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.1
    decoder = load_decoder(tiny_base, dtype=torch.float32, device="cpu")
    base = {"base_model": tiny_base, "base_hash": info.base_hash}
    model = load_trained(FullContextModel, info, result.adapter, decoder, **base)
    assert any(p.abs().max() > 1e-3 for n, p in model.lora.named_parameters() if "lora_B" in n)
    with pytest.raises(AdapterError, match="not an adapter folder"):
        read_info(result.adapter)


@pytest.mark.parametrize("method", ["gist", "autocompressor"])
def test_a_rival_is_trained_on_the_same_samples_and_goes_on_from_its_folder(
    pretraining: Any, triplets: str, tiny_base: str, tmp_path: Path, method: Any
) -> None:
    recipe = pretraining(objective={"reader": method}, run={"output": str(tmp_path / method)})
    result = train(recipe, stage="pretrain")
    info = read_info(result.adapter, RIVAL)
    assert (info.method, info.metrics["step"]) == (method, 2)
    assert info.metrics["ae_loss"] > 0
    with pytest.raises(AdapterError, match="not an adapter folder"):
        read_info(result.adapter)

    tuned = pretraining(
        init_adapter=str(result.adapter),
        data={"triplets": (TripletFile(path=triplets),)},
        objective={"reader": method, "ft_share": 0.5},
        run={"output": str(tmp_path / "tuned")},
    )
    second = read_info(train(tuned, stage="finetune").adapter, RIVAL)
    assert second.data["started from adapter"] == adapter_hash(result.adapter, RIVAL)[:16]
    decoder = load_decoder(tiny_base, dtype=torch.float32, device="cpu")
    base = {"base_model": tiny_base, "base_hash": info.base_hash}
    load_trained(
        model_class(second.model, method), second, tmp_path / "tuned" / "adapter", decoder, **base
    )


def test_fresh_weights_are_fine_tuned_only_on_purpose(pretraining: Any, triplets: str) -> None:
    recipe = pretraining(
        init_adapter="untrained",
        data={"triplets": (TripletFile(path=triplets),)},
        objective={"ft_share": 0.5},
    )
    result = train(recipe, stage="finetune")
    assert "started from adapter" not in read_info(result.adapter).data


def test_a_checkpoint_from_before_a_setting_existed_still_belongs_to_its_run(
    pretraining: Any,
) -> None:
    recipe = pretraining()
    train(recipe, stage="pretrain")
    newest = newest_checkpoint(Path(recipe.run.output) / "checkpoints")
    assert newest is not None
    state = torch.load(newest, weights_only=True)
    for name in ("reader", "ft_mean"):
        del state["recipe"]["objective"][name]
    state["recipe"]["objective"]["kl_share"] = 0.0  # a setting of old, at its neutral value
    torch.save(state, newest)
    assert train(recipe, stage="pretrain").steps == 2
    other = replace(recipe, objective=replace(recipe.objective, ft_mean="answers"))
    with pytest.raises(TrainingError, match="belongs to another recipe"):
        train(other, stage="pretrain")


def test_a_finished_run_goes_on_when_it_is_given_more_steps(pretraining: Any) -> None:
    recipe = pretraining()
    assert train(recipe, stage="pretrain").steps == 2
    more = replace(recipe, optim=replace(recipe.optim, steps=4))
    result = train(more, stage="pretrain")
    assert result.steps == 4
    records = read_records(Path(recipe.run.output) / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"][-1] == 4
    assert read_info(result.adapter).recipe["optim"]["steps"] == 4
