from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rouge_score")

from icae.errors import MissingDependencyError
from icae.evals import RivalsSettings
from icae.evals.metrics import bleu_counts, corpus_bleu
from icae.evals.questions import Question
from icae.evals.rival_kvpress import METHODS, KvPressReader
from icae.evals.rival_llmlingua import LlmLingua
from icae.evals.rivals import RIVALS, available
from icae.model import render_full_prompt, tokenize

TEXT = "the lamp of the inner harbour turned in the rain over men and their nets"
PLAIN = ("full context", "no context", "memory", "first tokens", "own summary")


def ask(engine: Any, prompt: str = "who turned it?", text: str = TEXT) -> Question:
    ids = tokenize(engine.tokenizer, text)
    return Question(context=text, context_ids=ids, prompt=prompt, answers=("rain",), group=0)


@pytest.fixture
def triplets(tmp_path: Path) -> Path:
    path = tmp_path / "town.jsonl"
    lines = (
        {"context": f"{TEXT[:50]} {n}", "prompt": f"what is {n}?", "answer": f"the {n}"}
        for n in range(4)
    )
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def measured(engine: Any, triplets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The rivals that need no package, measured on the tiny engine; the others are absent."""
    from icae.evals import evaluate

    for package in ("llmlingua", "kvpress"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("icae.evals.run.plot", lambda rows, panels, title: b"png")
    monkeypatch.setattr("icae.evals.metrics.RESAMPLES", 20)
    settings = RivalsSettings(ratios=(4.0,), questions=3, max_new_tokens=4)
    return evaluate(engine, [triplets], settings, folder=tmp_path / "out", command="x")


def test_one_table_holds_every_rival_that_can_take_part(measured: Any, engine: Any) -> None:
    rows = {row["kind"]: row for row in measured.rows}
    assert set(rows) == set(PLAIN)
    for row in rows.values():
        single = row["per_question"]
        pairs = zip(single["answer"], single["reference"], strict=True)
        expected = corpus_bleu([bleu_counts(answer, true) for answer, true in pairs])
        assert row["bleu"]["value"] == pytest.approx(expected)
        assert row["seconds"] > 0
        expected = engine.kv_bytes(1) * row["context_positions"] / 1e6
        assert row["kv_mb"] == pytest.approx(expected, abs=1e-3)
    assert rows["no context"]["context_positions"] == 0
    assert rows["memory"]["context_positions"] == pytest.approx(
        rows["first tokens"]["context_positions"]
    )


def test_a_rival_whose_package_is_missing_stands_in_the_table_with_the_reason(
    measured: Any, tmp_path: Path
) -> None:
    reasons = {row["kind"]: row["reason"] for row in measured.payload["comparisons"]}
    assert set(reasons) == {"LLMLingua", *METHODS}
    assert "icae[rivals]" in reasons["LLMLingua"]
    assert "--no-deps kvpress" in reasons["kvpress Knorm"]
    page = (tmp_path / "out" / "rivals.md").read_text()
    assert "## Not measured" in page
    assert "| LLMLingua | LLMLingua is not installed." in page


def test_every_rival_is_built_or_has_a_reason(engine: Any) -> None:
    readers, absent = available(engine, RIVALS)
    assert set(readers) | set(absent) == set(RIVALS)
    assert not set(readers) & set(absent)
    assert set(PLAIN) <= set(readers)


def test_llmlingua_keeps_the_tokens_that_the_decoder_finds_surprising(
    engine: Any, ignore: Any
) -> None:
    pytest.importorskip("llmlingua")
    source = LlmLingua(engine)
    question = ask(engine)
    texts = source.texts([question, ask(engine, "and the nets?")], 4.0, ignore)
    budget = -(-len(question.context_ids) // 4) + 2
    kept = tokenize(engine.tokenizer, texts[0])
    assert texts[0] == texts[1]  # the question has no part in it
    assert 0 < len(kept) <= budget
    # What is left is a subsequence of the text's tokens, up to merges where tokens are gone.
    letters = iter(TEXT)
    assert all(letter in letters for letter in texts[0])


def test_llmlingua_thins_out_a_short_text_to_its_end(engine: Any) -> None:
    pytest.importorskip("llmlingua")
    source, length = LlmLingua(engine), len(tokenize(engine.tokenizer, TEXT))
    made = source._compressor.compress_prompt(
        [TEXT],
        target_token=length // 4,
        iterative_size=length,
        use_context_level_filter=False,
    )
    left = len(tokenize(engine.tokenizer, made["compressed_prompt"]))
    assert left <= length // 4 + 4  # nothing much is left to cut off
    assert source.shortened(TEXT, length).startswith(TEXT[:3])


def test_llmlingua_works_beyond_its_first_segment(engine: Any) -> None:
    pytest.importorskip("llmlingua")
    long = " ".join([TEXT] * 5)  # more than the 200 tokens that it scores at once
    assert len(tokenize(engine.tokenizer, long)) > 210
    short = LlmLingua(engine).shortened(long, 40)
    assert 0 < len(tokenize(engine.tokenizer, short)) <= 42


def test_kvpress_keeps_as_many_places_as_the_memory_has_slots(engine: Any, ignore: Any) -> None:
    pytest.importorskip("kvpress")
    for method in METHODS.values():
        reader = KvPressReader(engine, method)
        (reading,) = reader.read([ask(engine)], 4.0, ignore)
        keys = [pair[0].shape[2] for pair in reading.front]  # type: ignore[attr-defined]
        assert set(keys) == {reading.context_positions}
        (answer,) = reader.answer([reading], 4, ignore)
        assert answer.prompt_tokens == reading.context_positions + len(reading.rest_ids)
        (losses,) = reader.losses([reading], [np.array([1, 2, 3])], ignore)
        assert losses.shape == (3,)
        assert np.isfinite(losses).all()


class KeepAll:
    """Stands for a press that drops nothing."""

    compression_ratio = 0.0

    def __call__(self, decoder: Any) -> Any:
        from contextlib import nullcontext

        return nullcontext()


def test_a_press_that_drops_nothing_reads_as_the_full_context(
    engine: Any, ignore: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icae.evals.rival_kvpress._press", lambda method: KeepAll())
    question, answer_ids = ask(engine), np.array([5, 9, 2])
    reader = KvPressReader(engine, "any")
    (reading,) = reader.read([question], 4.0, ignore)
    (losses,) = reader.losses([reading], [answer_ids], ignore)
    (answer,) = reader.answer([reading], 6, ignore)

    prompt = render_full_prompt(engine.tokenizer, question.context, question.prompt)
    decoder = engine.runtime.model.decoder
    with torch.no_grad():
        row = torch.from_numpy(np.concatenate([prompt, answer_ids]))[None]
        logits = decoder(input_ids=row).logits[0, -4:-1]
    expected = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(answer_ids), reduction="none"
    )
    assert losses == pytest.approx(expected.numpy(), abs=1e-4)
    full = engine.ask_text(question.context, question.prompt, max_new_tokens=6)
    assert answer.text == full.text


def test_questions_about_one_context_share_what_was_kept(
    engine: Any, ignore: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icae.evals.rival_kvpress._press", lambda method: KeepAll())
    reader = KvPressReader(engine, "any")
    first, second = reader.read([ask(engine), ask(engine, "and then?")], 4.0, ignore)
    assert first.front is second.front  # type: ignore[attr-defined]
    for reading in (first, second):
        prompt = reading.request.prompt_ids
        assert np.array_equal(prompt[reading.start :], reading.rest_ids)  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", ["llmlingua", "kvpress"])
def test_a_missing_package_is_named_with_what_to_install(
    engine: Any, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match="not installed"):
        LlmLingua(engine) if package == "llmlingua" else KvPressReader(engine, "KnormPress")
