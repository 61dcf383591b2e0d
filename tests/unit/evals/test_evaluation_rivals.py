from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rouge_score")

from icae.errors import MissingDependencyError
from icae.evals import Rivals
from icae.evals.questions import Question
from icae.evals.rival_llmlingua import LlmLingua
from icae.evals.text_metrics import bleu_figure
from icae.model import tokenize

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

    monkeypatch.setitem(sys.modules, "llmlingua", None)
    monkeypatch.setattr("icae.evals.results.picture", lambda rows, plots, title: b"png")
    monkeypatch.setattr("icae.evals.bootstrap.RESAMPLES", 20)
    settings = Rivals(ratios=(4.0,), questions=3, max_new_tokens=4)
    return evaluate(engine, [triplets], settings, folder=tmp_path / "out", command="x")


def test_one_table_holds_every_rival_that_can_take_part(measured: Any, engine: Any) -> None:
    rows = {row["kind"]: row for row in measured.rows}
    assert set(rows) == set(PLAIN)
    for row in rows.values():
        single = row["per_question"]
        pairs = list(zip(single["answer"], single["reference"], strict=True))
        assert row["bleu"] == bleu_figure(pairs, seed=0)
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
    assert set(reasons) == {"LLMLingua"}
    assert "icae[rivals]" in reasons["LLMLingua"]
    page = (tmp_path / "out" / "rivals.md").read_text()
    assert "## Not measured" in page
    assert "| LLMLingua | LLMLingua is not installed." in page


def test_llmlingua_keeps_the_tokens_that_the_decoder_finds_surprising(engine: Any) -> None:
    pytest.importorskip("llmlingua")
    source = LlmLingua(engine)
    question = ask(engine)
    texts = source.texts([question, ask(engine, "and the nets?")], 4.0)
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


def test_a_missing_package_is_named_with_what_to_install(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llmlingua", None)
    with pytest.raises(MissingDependencyError, match="not installed"):
        LlmLingua(engine)
