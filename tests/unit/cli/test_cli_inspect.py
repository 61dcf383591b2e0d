"""`icae inspect`: no model is loaded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from icae.cli.inspect import marked_text
from icae.cli.memory_tables import marked_spans, print_spans, weakest_spans
from icae.memory import Span
from word_memories import word_memory

pytestmark = pytest.mark.usefixtures("no_model")


@pytest.fixture
def tokenizer_found(monkeypatch, tiny):
    monkeypatch.setattr("icae.model.base.load_tokenizer", lambda base: tiny.tokenizer)


def test_json_describes_the_file_without_its_text(payload, made, memory_file):
    told = payload("inspect", memory_file)
    memory = made["notes"]
    assert told["file_bytes"] == memory_file.stat().st_size
    assert (told["tokens"], told["slots"]) == (memory.tokens, memory.slot_count)
    assert told["has_source"] is True
    assert told["weakest"] == marked_spans(memory.spans)
    assert told["provenance"]["adapter"] == "tiny"
    assert {"name", "sha256", "chars", "tokens"} <= set(told["documents"][0])
    assert [span["slots"] for span in told["spans"]] == [span.slots for span in memory.spans]
    assert {span["document"] for span in told["spans"]} == {0}
    assert "quick" not in json.dumps(told)


def test_names_in_a_file_are_printed_as_they_are(icae, tiny, tmp_path):
    path = tmp_path / "odd.icae"
    tiny.compress("[red]hot[/red] :smile:", name="[bold]a\x1b[2J.txt").save(path)
    text = icae("inspect", path).stdout
    assert "[bold]a\ufffd[2J.txt" in text
    assert "[red]hot" in text


@pytest.mark.usefixtures("tokenizer_found")
def test_weakest_passages_are_printed_with_what_is_lost(icae, payload, made, memory_file):
    memory = made["notes"]
    passages = payload("inspect", memory_file, "--passages", 2)["passages"]
    fidelity = [span.fidelity for span in memory.spans]
    assert [p["fidelity"] for p in passages] == sorted(fidelity)[:2]
    for passage in passages:
        assert passage["text"] == memory.span_source(passage["span"])
        assert bool(passage["lost"]) == (passage["fidelity"] < 1)
    text = icae("inspect", memory_file, "--passages", 2).stdout
    assert "Passages of lowest fidelity" in text
    assert "⟦" in text


@pytest.mark.usefixtures("tokenizer_found")
def test_page_is_written_once_and_shows_the_text(icae, memory_file, tmp_path):
    target = tmp_path / "notes.html"
    result = icae("inspect", memory_file, "--html", target)
    assert result.exit_code == 0, result.output
    assert "notes.txt" in target.read_text(encoding="utf-8")
    assert icae("inspect", memory_file, "--html", target).exit_code == 1
    assert icae("inspect", memory_file, "--html", target, "--force").exit_code == 0
    assert icae("inspect", memory_file, "--html", memory_file, "--force").exit_code == 1


@pytest.mark.usefixtures("tokenizer_found")
def test_tokens_are_known_of_a_slice_and_not_of_other_tokens(payload, made, tmp_path):
    memory, path = made["notes"], tmp_path / "x.icae"
    memory.slice(40, 120).save(path)
    assert payload("inspect", path, "--passages", 1)["passages"][0]["lost"] is not None
    document = replace(memory.documents[0], token_ids_sha256="0" * 64)
    replace(memory, documents=(document,)).save(path)
    assert payload("inspect", path, "--passages", 1)["passages"][0]["lost"] is None


@pytest.mark.usefixtures("tokenizer_found")
def test_tokenizer_of_another_model_is_refused(error, memory_file, monkeypatch):
    monkeypatch.setattr("icae.model.base_files.tokenizer_hash", lambda tokenizer: "f" * 64)
    told = error("inspect", memory_file, "--passages", 1)
    assert told["type"] == "IncompatibleMemoryError"


def test_neighbouring_lost_tokens_are_marked_as_one():
    lost = [[1, 2], [2, 4], [5, 6]]
    assert marked_text("abcdefg", lost, colour=False).plain == "a⟦bcd⟧e⟦f⟧g"
    coloured = marked_text("abc\x1bd", [[0, 1]], colour=True)
    assert coloured.plain == "abc\ufffdd"
    assert [(s.start, s.end) for s in coloured.spans] == [(0, 1)]


def spans_held(*values: float | None) -> tuple[Span, ...]:
    return word_memory("one two " * len(values), span_length=2, held=lambda i, _: values[i]).spans


def test_weakest_spans_come_first_and_the_best_are_not_marked():
    spans = spans_held(0.9, 0.5, None, 0.5, 1.0, 1.0)
    assert weakest_spans(spans, 3) == [1, 3, 0]
    assert marked_spans(spans) == [1, 3, 0]
    assert marked_spans(spans_held(0.9, 0.5)) == [1]
    assert marked_spans(spans_held(0.5, 0.5)) == []


def test_of_many_spans_ten_are_shown(capsys):
    def shown(*values: float | None) -> list[str]:
        print_spans(spans_held(*values), lambda index: None, values[0])
        return capsys.readouterr().out.strip().splitlines()

    assert len(shown(*[0.5] * 20)) == 1 + 20
    assert shown(*[None] * 21)[0] == "The first 10 of 21 spans"
    lines = shown(*(1 - i / 100 for i in range(30)))
    assert lines[0] == "The 10 of 30 spans of lowest fidelity (mean 100.0 %)"
    assert [line.split()[0] for line in lines[1:] if "lowest " in line] == ["29", "28", "27"]
    assert len(lines) == 1 + 1 + 10
