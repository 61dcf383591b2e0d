"""Every recipe trains for two steps on a tiny base, on texts a sixteenth as long."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icae.config import Recipe, load_recipe
from icae.model.base import load_tokenizer
from icae.model.base_files import tokenizer_hash
from icae.train import train
from icae.train.records import read_records

FOLDER = Path(__file__).parents[3] / "recipes"
RECIPES = sorted(p for p in FOLDER.glob("*.yaml") if not p.name.startswith("data-"))
SHORTER = 16


@pytest.fixture
def shrink(tiny: Any, tiny_base: str, tmp_path: Path) -> Callable[[Recipe], Recipe]:
    """The recipe on the tiny base and made-up text; its settings stay."""
    packed = tokenizer_hash(load_tokenizer(tiny_base))
    shards = tiny.shards([400, 600], tokenizer_hash=packed)
    questions = tmp_path / "questions.jsonl"
    words = " ".join(f"w{i}" for i in range(2, 14))
    questions.write_text(json.dumps({"context": words, "prompt": "w5", "answer": "w6"}) + "\n")

    def build(recipe: Recipe) -> Recipe:
        lengths = {max(16, n // SHORTER): w for n, w in recipe.data.context_lengths.items()}
        span = max(16, recipe.model.span_length // SHORTER)
        return replace(
            recipe,
            base=tiny_base,
            init_adapter=None,
            model=replace(recipe.model, span_length=span, lora_rank=4),
            data=replace(
                recipe.data,
                shards=str(shards.folder),
                eval_shards=str(shards.folder),
                triplets=tuple(replace(t, path=str(questions)) for t in recipe.data.triplets),
                triplet_context=None,
                context_lengths=lengths,
                continuation_length=8,
            ),
            optim=replace(recipe.optim, batch_size=4, micro_batch_size=2),
            run=replace(recipe.run, output=str(tmp_path / "run"), dtype="float32", eval_samples=2),
        )

    return build


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_survives_a_dry_run(
    path: Path, shrink: Callable[[Recipe], Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = shrink(load_recipe(path))
    stage = "finetune" if recipe.objective.ft_share > 0 else "pretrain"
    if stage == "finetune" and recipe.objective.reader == "memory":
        first = replace(
            recipe,
            objective=replace(recipe.objective, ft_share=0.0),
            run=replace(recipe.run, output=str(Path(recipe.run.output).with_name("first"))),
        )
        start = train(first, stage="pretrain", dry_run_steps=1).adapter
        recipe = replace(recipe, init_adapter=str(start))
    result = train(recipe, stage=stage, dry_run_steps=2)
    assert result.steps == 2
    records = read_records(result.adapter.parent / "metrics.jsonl")
    losses = [value for r in records for name, value in r.items() if name.endswith("_loss")]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
