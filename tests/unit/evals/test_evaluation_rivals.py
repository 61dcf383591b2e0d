from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rouge_score")

from icae.config import ModelConfig
from icae.errors import AdapterError, InputError, ResultConflictError
from icae.evals import Rivals, RivalTexts
from icae.evals.held import slot_hold
from icae.evals.questions import Question
from icae.evals.respondents import by_memory
from icae.evals.rival_llmlingua import llmlingua
from icae.evals.text_metrics import bleu_figure
from icae.evals.trained_rivals import gist_hold, load_rivals, summary_hold
from icae.model.adapter import model_class, save_adapter
from icae.model.autocompressor import AutoCompressor
from icae.model.gist import GistModel
from icae.model.objectives import autoencoding, instruction
from icae.model.prompts import render_answer, render_prompt, tokenize

TEXT = "the lamp of the inner harbour turned in the rain over men and their nets"


@pytest.fixture
def rival(engine: Any, as_trained: Any) -> Callable[..., Any]:
    """``rival(method)``: a tiny rival on the engine's decoder."""

    def build(method: Any) -> Any:
        config = ModelConfig(span_length=16, lora_rank=4, lora_alpha=8.0, max_slots=16)
        model = model_class(config, method)(engine.runtime.model.decoder, config)
        return as_trained(model).eval()

    return build


@pytest.fixture
def folder(engine: Any, rival: Any, info_for: Any, tmp_path: Path) -> Callable[..., Path]:
    """``folder(method, name=...)``: the folder of a tiny rival."""

    def build(method: Any, *, name: str = "tiny", **record: Any) -> Path:
        model = rival(method)
        made = {"recipe": {"optim": {"batch_size": 4}}, "metrics": {"step": 9.0}, **record}
        info = replace(info_for(model, engine.tokenizer, name=name), method=method, **made)
        return save_adapter(model, info, tmp_path / f"{method}-{name}")

    return build


def ask(engine: Any, prompt: str = "who turned it?", group: int = 0) -> Question:
    text = TEXT[group:]
    ids = tokenize(engine.tokenizer, text)
    return Question(context=text, context_ids=ids, prompt=prompt, answers=("rain",), group=group)


def greedy(model: GistModel, context: Any, task: Any, steps: int, ids: Any) -> list[int]:
    """The likeliest tokens behind ``[gist tokens ; objective ; ids]``, one pass for each."""
    written: list[int] = []
    with torch.no_grad():
        (memory,) = model.encode([context], [4.0])
        for _ in range(steps):
            read = np.array([*ids, *written, 0])
            (logits,) = model.label_logits([memory], [task(read)])
            written.append(int(logits[-1].argmax()))
    return written


def test_gist_losses_are_those_of_the_model_behind_the_prompt(engine: Any, rival: Any) -> None:
    model, asked = rival("gist"), ask(engine)
    answer = render_answer(engine.tokenizer, "rain")
    read = by_memory(engine, gist_hold(engine, model))([asked, ask(engine, "and the nets?")], 4.0)
    (losses, _) = read.losses([answer, answer])
    prompt = render_prompt(engine.tokenizer, asked.prompt)
    with torch.no_grad():
        memories = model.encode([asked.context_ids], [4.0])
        (score,) = model.score(memories, [instruction(prompt, answer)])
    assert losses == pytest.approx(-score.log_probs_T.numpy(), abs=1e-4)
    assert read.held.gists[0] is read.held.gists[1]  # one context is read once
    assert read.positions[0] == memories[0].places


def test_gist_answers_are_greedy_whoever_is_asked_beside(engine: Any, rival: Any) -> None:
    model = rival("gist")
    asked = [ask(engine), ask(engine, "what of the nets, and of the men?", 9)]
    answers = by_memory(engine, gist_hold(engine, model))(asked, 4.0).answer(5)
    for question, answer in zip(asked, answers, strict=True):
        prompt = render_prompt(engine.tokenizer, question.prompt)
        ids = greedy(model, question.context_ids, lambda r: instruction(r[:1], r[1:]), 5, prompt)
        text = engine.tokenizer.decode(ids[: answer.answer_tokens], skip_special_tokens=True)
        assert answer.text == text.strip()
        assert answer.prompt_tokens == answer.memory_positions + len(prompt) + 1


def test_gist_writes_back_what_it_would_token_by_token(engine: Any, rival: Any) -> None:
    model = rival("gist")
    contexts = [ask(engine).context_ids[:20], ask(engine, group=9).context_ids[:24]]
    written = gist_hold(engine, model)(contexts, 4.0).write_back()
    assert [len(ids) for ids in written] == [20, 24]
    for context, ids in zip(contexts, written, strict=True):
        assert list(ids[:6]) == greedy(model, context, autoencoding, 6, [])


def test_an_autocompressor_of_one_span_reads_as_the_memory_of_its_weights(engine: Any) -> None:
    model = engine.runtime.model
    same = AutoCompressor(model.decoder, model.config)
    same.load_state_dict(model.state_dict())
    short = [
        replace(question, context_ids=question.context_ids[:length])
        for question, length in ((ask(engine), 16), (ask(engine, group=9), 40))
    ]
    answer = render_answer(engine.tokenizer, "rain")
    losses = []
    for hold in (slot_hold(engine), summary_hold(engine, same.eval())):
        read = by_memory(engine, hold)(short, 4.0)
        assert read.positions == [4, 4 + 4 + 2]
        losses.append(read.losses([answer, answer]))
    (own, own_long), (other, other_long) = losses
    assert own == pytest.approx(other, abs=1e-4)
    assert np.abs(own_long - other_long).max() > 1e-3  # of several spans it is recursive


@pytest.fixture
def triplets(write_lines: Any) -> Path:
    lines = (
        {"context": f"{TEXT[:50]} {n}", "prompt": f"what is {n}?", "answer": f"the {n}"}
        for n in range(3)
    )
    return Path(write_lines("town.jsonl", lines))


@pytest.fixture
def corpus(write_lines: Any) -> Path:
    return Path(write_lines("held-out.jsonl", ({"text": f"{n} {TEXT} {TEXT}"} for n in range(4))))


@pytest.fixture
def run(run: Any, triplets: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``run(trained=(...), texts=...)``: the experiment on the tiny engine."""
    monkeypatch.setitem(sys.modules, "llmlingua", None)

    def measure(**settings: Any) -> Any:
        made = Rivals(ratios=(4.0,), questions=2, max_new_tokens=3, **settings)
        return run(made, inputs=[triplets])

    return measure


def held_out(corpus: Path, **settings: Any) -> RivalTexts:
    return RivalTexts(
        paths=(corpus,), **{"lengths": (24,), "samples": 3, "greedy": 2, "tokens": 4, **settings}
    )


def test_trained_rivals_stand_beside_the_memory_in_both_tables(
    run: Any, folder: Any, corpus: Path, engine: Any, tmp_path: Path
) -> None:
    made = run(trained=(folder("gist"), folder("autocompressor")), texts=held_out(corpus))
    rows = {(row["dataset"], row["kind"]): row for row in made.rows}
    asked = {kind for dataset, kind in rows if dataset == "town"}
    assert {"memory", "GIST", "AutoCompressor", "first tokens", "full context"} <= asked
    text = {kind: row for (dataset, kind), row in rows.items() if dataset == "text of 24 tokens"}
    names = {"full context", "no context", "memory", "GIST", "AutoCompressor", "last tokens"}
    assert set(text) == names
    for kind in ("memory", "GIST", "AutoCompressor"):
        row = text[kind]
        assert row["context_positions"] == 4 + 2
        assert row["kv_mb"] == pytest.approx(engine.kv_bytes(6) / 1e6, abs=1e-3)
        assert {"ae_loss", "ae_accuracy", "continuation_loss", "bleu", "seconds"} <= set(row)
        assert len(row["per_context"]["ae_loss"]) == row["samples"] == 3
    assert text["last tokens"]["context_positions"] == 6
    assert "ae_loss" not in text["full context"]
    assert text["no context"]["context_positions"] == 0
    losses = [text[kind]["ae_loss"]["value"] for kind in ("memory", "GIST", "AutoCompressor")]
    assert len(set(losses)) == 3
    page = (tmp_path / "out" / "rivals.md").read_text()
    assert "GIST: tiny, trained by the same loop" in page
    assert "9 updates of 4 samples" in page
    assert "3 held-out contexts of each length" in page
    record = made.payload["trained"]["GIST"]
    assert (record["updates"], record["lora_rank"]) == (9.0, 4)


def test_a_rival_may_be_added_to_a_result_and_other_texts_may_not(
    run: Any, folder: Any, corpus: Path
) -> None:
    first = run(texts=held_out(corpus))
    second = run(texts=held_out(corpus), trained=(folder("gist"),))
    kept = [row for row in second.rows if row["kind"] == "memory"]
    assert kept == [row for row in first.rows if row["kind"] == "memory"]  # seconds too
    with pytest.raises(ResultConflictError, match="another run"):
        run(texts=held_out(corpus, samples=4))


def test_two_rivals_of_one_method_are_told_apart_by_name(folder: Any, engine: Any) -> None:
    folders = [folder("gist"), folder("gist", name="other"), folder("autocompressor")]
    names = load_rivals(engine, folders)
    assert list(names) == ["GIST (tiny)", "GIST (other)", "AutoCompressor"]
    with pytest.raises(InputError, match="one name"):
        load_rivals(engine, [folder("gist"), folder("gist")])


def test_a_folder_that_is_no_rival_of_this_base_is_refused(
    run: Any, folder: Any, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match="not the folder of a trained rival"):
        run(trained=(tmp_path,))
    with pytest.raises(AdapterError, match="another base model"):
        run(trained=(folder("gist", base_hash="b" * 64),))


def test_one_table_holds_every_rival_that_can_take_part_and_why_others_cannot(
    run: Any, engine: Any, tmp_path: Path
) -> None:
    measured = run()
    rows = {row["kind"]: row for row in measured.rows}
    assert set(rows) == {"full context", "no context", "memory", "first tokens", "own summary"}
    for row in rows.values():
        single = row["per_question"]
        pairs = list(zip(single["answer"], single["reference"], strict=True))
        assert row["bleu"] == bleu_figure(pairs, seed=0)
        assert row["seconds"] > 0
        expected = engine.kv_bytes(1) * row["context_positions"] / 1e6
        assert row["kv_mb"] == pytest.approx(expected, abs=1e-3)
    assert rows["no context"]["context_positions"] == 0
    places = [rows[kind]["context_positions"] for kind in ("memory", "first tokens")]
    assert places[0] == pytest.approx(places[1])
    page = (tmp_path / "out" / "rivals.md").read_text()
    assert "- Not measured: LLMLingua." in page
    assert "[rivals]" in page


def test_llmlingua_keeps_the_tokens_that_the_decoder_finds_surprising(engine: Any) -> None:
    pytest.importorskip("llmlingua")
    question = ask(engine)
    texts = llmlingua(engine)([question, ask(engine, "and the nets?")], 4.0)
    budget = -(-len(question.context_ids) // 4) + 2
    kept = tokenize(engine.tokenizer, texts[0])
    assert texts[0] == texts[1]  # the question has no part in it
    assert 0 < len(kept) <= budget
    # What is left is a subsequence of the text's tokens, up to merges where tokens are gone.
    letters = iter(TEXT)
    assert all(letter in letters for letter in texts[0])


def test_llmlingua_works_beyond_its_first_segment(engine: Any) -> None:
    pytest.importorskip("llmlingua")
    long = " ".join([TEXT] * 5)  # more than the 200 tokens that it scores at once
    ids = tokenize(engine.tokenizer, long)
    assert len(ids) > 210
    question = replace(ask(engine), context=long, context_ids=ids)
    (short,) = llmlingua(engine)([question], 5.5)
    assert 0 < len(tokenize(engine.tokenizer, short)) <= len(ids) // 5
