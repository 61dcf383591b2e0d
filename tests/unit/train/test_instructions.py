from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icae.config.data import TripletFile
from icae.errors import TrainingError
from icae.model.objectives import instruction
from icae.train.instructions import (
    InstructionSource,
    TokenizedTriplet,
    TripletSet,
    load_instructions,
)


def write_triplets(path: Path, lengths: list[int], **fields: Any) -> TripletFile:
    rows = [
        {
            "context": " ".join(f"w{2 + i % 100}" for i in range(length)),
            "prompt": "w5 w6",
            "answer": f"w{length}",
            **fields,
        }
        for length in lengths
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return TripletFile(path=str(path))


@pytest.fixture
def load(tiny: Any, tokenizer: Any) -> Any:
    """``load(file, ..., longest=16)``: what is taken of the files."""

    def run(*files: TripletFile, longest: int = 16, seed: int = 0, **objective: Any) -> Any:
        data = {"triplets": files, "triplet_context": longest}
        recipe = tiny.recipe(data=data, optim={"seed": seed}, objective=objective)
        return load_instructions(recipe, tokenizer)

    return run


def test_triplets_are_left_out_by_context_length_and_counted(
    tmp_path: Path, load: Any, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_triplets(tmp_path / "t.jsonl", [7, 8, 16, 17, 40])
    with caplog.at_level(logging.INFO):
        (taken,) = load(file)
    assert [len(t.context_ids) for t in taken.triplets] == [8, 16]
    said = "t.jsonl: 2 triplets (left out: 2 context too long, 1 context too short), weight 2"
    assert said in caplog.text


def test_the_answer_with_its_end_is_scored_and_the_prompt_is_not(
    tmp_path: Path, tokenizer: Any, load: Any
) -> None:
    file = write_triplets(tmp_path / "t.jsonl", [9])
    (task,) = load(file)[0].triplets[0].tasks
    (full,) = load(file, reader="full-context")
    assert full.triplets[0].tasks[0].full_prompt_ids.tolist()[:11] == [
        *range(2, 11),
        5,
        6,
    ]
    assert task.objective == "ft"
    assert task.scored_ids.tolist() == [9, tokenizer.eos_token_id]
    assert task.target_ids[: task.unscored].tolist()[:2] == [5, 6]
    assert task.full_prompt_ids is None


def test_no_triplet_that_fits_is_refused(tmp_path: Path, load: Any) -> None:
    file = write_triplets(tmp_path / "t.jsonl", [3, 40])
    with pytest.raises(TrainingError, match="contexts of 8 to 16 tokens"):
        load(file)


def test_a_cap_takes_a_random_part_that_the_seed_decides(tmp_path: Path, load: Any) -> None:
    path = write_triplets(tmp_path / "t.jsonl", list(range(10, 40))).path
    capped = TripletFile(path=path, cap=7)
    lengths = []
    for seed in (0, 0, 1):
        (taken,) = load(capped, longest=99, seed=seed)
        assert str(taken) == "7 triplets (left out: 23 over the cap)"
        assert taken.weight == 7.0
        lengths.append([len(t.context_ids) for t in taken.triplets])
    assert lengths[0] == lengths[1] != lengths[2]
    assert lengths[0] != list(range(10, 17))


def draws(sets: Any, count: int = 2000) -> Counter[int]:
    source, rng = InstructionSource(sets), np.random.default_rng(0)
    return Counter(len(source.draw(rng, 4.0).context_ids) for _ in range(count))


def test_files_are_drawn_by_their_weights(tmp_path: Path, load: Any) -> None:
    few = write_triplets(tmp_path / "few.jsonl", [10])
    many = write_triplets(tmp_path / "many.jsonl", [20] * 9)
    plain = draws(load(few, many, longest=99))
    assert plain[10] / 2000 == pytest.approx(0.1, abs=0.03), "every triplet is as likely"
    few = TripletFile(path=few.path, weight=3.0)
    many = TripletFile(path=many.path, weight=1.0)
    weighted = draws(load(few, many, longest=99))
    assert weighted[10] / 2000 == pytest.approx(0.75, abs=0.04)


def test_every_reference_answer_is_drawn_and_case_alone_makes_none(
    tmp_path: Path, load: Any
) -> None:
    file = write_triplets(tmp_path / "t.jsonl", [9], answers=["w7", "W9", "w9 "])
    sets = load(file)
    source, rng = InstructionSource(sets), np.random.default_rng(0)
    answers = Counter(int(source.draw(rng, 2.0).tasks[0].scored_ids[0]) for _ in range(200))
    assert set(answers) == {9, 7}
    assert answers[7] / 200 == pytest.approx(0.5, abs=0.12)


def test_triplets_of_one_context_share_its_memory() -> None:
    def made(context: list[int], prompts: range) -> list[TokenizedTriplet]:
        ids = np.array(context, dtype=np.int64)
        return [
            TokenizedTriplet(context_ids=ids, tasks=(instruction(ids[:3] + p, ids[:2]),))
            for p in prompts
        ]

    found = (*made([1, 2, 3, 4], range(5)), *made([5, 6, 7], range(5, 6)))
    sets = [TripletSet(name="t", weight=1.0, triplets=found)]
    source, rng = InstructionSource(sets, per_context=3), np.random.default_rng(0)
    asked: Counter[int] = Counter()
    for _ in range(200):
        sample = source.draw(rng, 2.0)
        prompts = [int(task.input_ids[0] - sample.context_ids[0]) for task in sample.tasks]
        assert len(set(prompts)) == len(prompts) == (3 if len(sample.context_ids) == 4 else 1)
        assert set(prompts) <= set(range(5) if len(prompts) == 3 else range(5, 6))
        asked.update(prompts)
    assert set(asked) == set(range(6))
    assert all(asked[p] / 500 == pytest.approx(0.2, abs=0.06) for p in range(5))
    alone = InstructionSource(sets).draw(np.random.default_rng(0), 2.0)
    assert len(alone.tasks) == 1
