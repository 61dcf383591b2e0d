"""The experiment on the tiny engine, against direct calls of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icae.config import ModelConfig
from icae.errors import AdapterError, InputError
from icae.evals import Qa
from icae.evals.qa import READERS
from icae.evals.readers import ANY_RATIO
from icae.model.adapter import load_trained, save_adapter
from icae.model.adapter_files import FULL_CONTEXT, read_info
from icae.model.full_context import FullContextModel
from icae.model.objectives import Sample, instruction
from icae.model.prompts import render_answer, render_full_prompt, render_prompt, tokenize

CONTEXTS = [
    "the lamp of a harbour town",
    "rain over other men and their nets in the inner harbour",
    "a third text, about the inner lamp",
]

PLACES = (0, 0, 1, 2, 2)
"""The text that each question is about."""


@pytest.fixture
def files(write_lines: Callable[..., Path]) -> list[Path]:
    """Five questions about three texts, and four with a choice."""
    open_rows = [
        {"context": CONTEXTS[i], "prompt": f"who {n}?", "answer": "the men", "answers": ["nets"]}
        for n, i in enumerate(PLACES)
    ]
    closed = [
        {"context": CONTEXTS[n % 3], "prompt": f"is it {n}?", "answer": answer}
        for n, answer in enumerate(("Yes.", "No.", "Yes.", "Yes."))
    ]
    return [write_lines("open.jsonl", open_rows), write_lines("closed.jsonl", closed)]


@pytest.fixture
def settings() -> Qa:
    return Qa(ratios=(2.0, 4.0), questions=None, max_new_tokens=4)


@pytest.fixture
def run(run: Any, files: list[Path]) -> Callable[..., Any]:
    """``run(settings, texts=..., folder=...)``."""
    return lambda wanted, *, texts=None, **more: run(wanted, inputs=texts or files, **more)


def row_of(rows: Any, kind: str, *, dataset: str = "open", ratio: float | None = None) -> Any:
    return next(r for r in rows if (r["kind"], r["dataset"], r["ratio"]) == (kind, dataset, ratio))


def direct_loss(decoder: Any, prompt_ids: Any, answer_ids: Any) -> float:
    ids = torch.tensor(np.concatenate([prompt_ids, answer_ids]))[None]
    labels = ids.clone()
    labels[:, : len(prompt_ids)] = -100
    with torch.no_grad():
        return float(decoder(input_ids=ids, labels=labels).loss)


@pytest.fixture
def upper(engine: Any, as_trained: Any, info_for: Any, tmp_path: Path) -> Path:
    """Folder of a full-context reader with random weights."""
    config = ModelConfig(lora_rank=2, lora_alpha=4.0)
    model = as_trained(FullContextModel(engine.runtime.model.decoder, config))
    info = info_for(model, engine.tokenizer, name="upper")
    made = {"method": "full-context", "base_hash": engine.provenance.base_hash}
    return save_adapter(model, replace(info, **made), tmp_path / "upper")


def test_every_reader_ratio_and_data_set_has_a_row(run: Any, settings: Any, tmp_path: Path) -> None:
    finished = run(settings)
    free = [("full context", None), ("no context", None)]
    by_slots = [kind for kind in READERS if kind not in ANY_RATIO]
    slots = [(kind, r) for r in (2.0, 4.0) for kind in by_slots]
    expected = [(name, *pair) for name in ("open", "closed") for pair in (*free, *slots)]
    assert [(r["dataset"], r["kind"], r["ratio"]) for r in finished.rows] == expected
    page = (tmp_path / "out" / "qa.md").read_text(encoding="utf-8")
    assert page.count("\n| open |") == 10 + 2 * 5
    assert "open: 5 questions about 3 contexts, of 5 in the file; 0 of the file" in page
    assert "always saying the commonest gives 0.750" in page
    assert finished.payload["rouge"].startswith("rouge-score")
    assert [s["contexts"] for s in finished.payload["sets"]] == [3, 3]


def test_answers_and_positions_are_those_of_ask_and_ask_text(
    run: Any, settings: Any, engine: Any, files: list[Path]
) -> None:
    wanted = replace(settings, ratios=(4.0,), readers=("memory", "full context"))
    rows = run(wanted, texts=files[:1]).rows
    memory, full = row_of(rows, "memory", ratio=4.0), row_of(rows, "full context")
    asked = {f"who {n}?": CONTEXTS[i] for n, i in enumerate(PLACES)}
    prompts = full["per_question"]["prompt"]
    assert sorted(prompts) == sorted(asked)
    memories = {context: engine.compress(context, ratio=4.0) for context in CONTEXTS}
    answers = [engine.ask(memories[asked[p]], p, max_new_tokens=4) for p in prompts]
    assert memory["per_question"]["answer"] == [a.text for a in answers]
    mean = np.mean([a.prompt_tokens for a in answers])
    assert memory["positions"] == pytest.approx(mean, abs=0.1)
    answers = [engine.ask_text(asked[p], p, max_new_tokens=4) for p in prompts]
    assert full["per_question"]["answer"] == [a.text for a in answers]
    mean = np.mean([a.prompt_tokens for a in answers])
    assert full["positions"] == pytest.approx(mean, abs=0.1)
    assert full["unterminated"]["value"] == np.mean([not a.finished for a in answers])


def test_losses_are_those_of_the_reference_behind_what_each_reader_reads(
    run: Any, settings: Any, engine: Any, upper: Path, files: list[Path]
) -> None:
    readers = ("memory", "full context", "no context", "first tokens")
    wanted = replace(settings, ratios=(4.0,), readers=readers, upper_bound=upper)
    finished = run(wanted, texts=files[:1])
    tokenizer, decoder, made = engine.tokenizer, engine.runtime.model.decoder, engine.provenance
    answer, prompt, context = render_answer(tokenizer, "the men"), "who 2?", CONTEXTS[1]
    full_ids = render_full_prompt(tokenizer, context, prompt)
    singles = {row["kind"]: row["per_question"] for row in finished.rows}
    at = singles["memory"]["prompt"].index(prompt)

    def loss(kind: str) -> Any:
        return pytest.approx(singles[kind]["loss"][at], abs=1e-4)

    assert direct_loss(decoder, full_ids, answer) == loss("full context")
    alone = render_prompt(tokenizer, prompt)
    assert direct_loss(decoder, alone, answer) == loss("no context")
    ids = tokenize(tokenizer, context)
    cut = tokenizer.decode(ids[: len(engine.compress(context, ratio=4.0).slots)].tolist())
    assert singles["first tokens"]["read"][at] == cut
    assert "read" not in singles["full context"]
    cut_ids = render_full_prompt(tokenizer, cut, prompt)
    assert direct_loss(decoder, cut_ids, answer) == loss("first tokens")
    positions = {row["kind"]: row["context_positions"] for row in finished.rows}
    assert positions["memory"] == positions["first tokens"]
    tuned = load_trained(
        FullContextModel,
        read_info(upper, FULL_CONTEXT),
        upper,
        decoder,
        base_model=made.base_model,
        base_hash=made.base_hash,
    )
    assert direct_loss(tuned.decoder, full_ids, answer) == loss("upper bound")
    assert singles["upper bound"]["loss"][at] != loss("full context")
    assert row_of(finished.rows, "upper bound")["reader"].startswith("upper bound ")
    assert finished.payload["upper_bound"]["lora_rank"] == 2
    with torch.no_grad():
        (score,) = engine.runtime.model(
            [Sample(context_ids=ids, ratio=4.0, tasks=(instruction(alone, answer),))]
        )
    assert float(score.loss_sum) / score.labels == loss("memory")


def test_the_other_memory_is_that_of_another_text(
    run: Any, settings: Any, engine: Any, files: list[Path]
) -> None:
    wanted = replace(settings, ratios=(2.0,), readers=("other memory", "memory"))
    rows = run(wanted, texts=files[:1]).rows
    other, own = (row_of(rows, kind, ratio=2.0)["per_question"] for kind in wanted.readers)
    assert other["prompt"] == own["prompt"]
    at = other["prompt"].index("who 2?")
    answers = {
        engine.ask(engine.compress(text, ratio=2.0), "who 2?", max_new_tokens=4).text
        for text in CONTEXTS
        if text != CONTEXTS[1]
    }
    assert other["answer"][at] in answers
    assert all(a != b for a, b in zip(other["loss"], own["loss"], strict=True))


def test_the_choice_is_the_likelier_answer(run: Any, settings: Any, engine: Any) -> None:
    rows = run(replace(settings, readers=("full context",))).rows
    full = row_of(rows, "full context", dataset="closed")["per_question"]
    for at, prompt in enumerate(full["prompt"]):
        context = CONTEXTS[int(prompt[6]) % 3]
        ids = render_full_prompt(engine.tokenizer, context, prompt)
        sums = []
        for choice in ("Yes.", "No."):
            own = tokenize(engine.tokenizer, choice)
            sums.append(-direct_loss(engine.runtime.model.decoder, ids, own) * len(own))
        right = full["reference"][at] == ("Yes.", "No.")[int(np.argmax(sums))]
        assert full["accuracy"][at] == float(right)
    assert "accuracy" not in row_of(rows, "full context")


def test_differences_are_paired_and_of_the_same_questions(
    run: Any, settings: Any, files: list[Path]
) -> None:
    wanted = replace(settings, readers=("memory", "full context", "first tokens"))
    finished = run(wanted, texts=files[:1])
    compared = finished.payload["comparisons"]
    assert len(compared) == 2 * 2
    row = row_of(compared, "first tokens", ratio=4.0)
    mine = row_of(finished.rows, "memory", ratio=4.0)["per_question"]
    other = row_of(finished.rows, "first tokens", ratio=4.0)["per_question"]
    gaps = np.array(mine["loss"]) - np.array(other["loss"])
    assert row["loss"]["value"] == pytest.approx(gaps.mean())
    assert row["loss"]["low"] <= gaps.mean() <= row["loss"]["high"]
    full = row_of(compared, "full context", ratio=2.0)
    assert full["loss"]["value"] != row_of(compared, "full context", ratio=4.0)["loss"]["value"]


def test_a_reader_and_a_ratio_may_be_added_later(
    run: Any, settings: Any, upper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(replace(settings, ratios=(2.0,), readers=("memory", "no context")))
    cells: list[Any] = []
    measure = Qa.measure

    def record(self: Any, material: Any, cell: Any, rows: Any) -> Any:
        cells.append((cell.dataset, cell.ratio, cell.reader.partition(" ")[0]))
        return measure(self, material, cell, rows)

    monkeypatch.setattr(Qa, "measure", record)
    wanted = replace(settings, readers=("memory", "no context"), upper_bound=upper)
    added = run(wanted)
    assert cells == [
        (name, *cell) for name in ("open", "closed") for cell in ((None, "upper"), (4.0, "memory"))
    ]
    assert added.payload["comparisons"] == run(wanted, folder="direct").payload["comparisons"]


def test_other_weights_of_the_upper_bound_are_another_run(
    run: Any, settings: Any, upper: Path, engine: Any
) -> None:
    from safetensors.torch import load_file, save_file

    wanted = replace(settings, readers=("no context",), upper_bound=upper)
    run(wanted)
    weights = upper / "adapter_model.safetensors"
    save_file({name: 2 * t for name, t in load_file(weights).items()}, weights)
    with pytest.raises(InputError, match="another run") as caught:
        run(wanted)
    assert "reader upper bound" in str(caught.value.got)


def test_an_adapter_is_refused_as_the_upper_bound(
    run: Any, settings: Any, saved_adapter: Path
) -> None:
    with pytest.raises(AdapterError, match="not the folder of a full-context reader"):
        run(replace(settings, upper_bound=saved_adapter))
