"""`icae inspect --passages` and `--html`: a tokenizer is loaded, but no model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from icae import model as models
from icae.cli.inspect import marked_text
from icae.memory import Memory

TEXT = "The inner thing is in the thin tin: a thief ran there, and the end is near. 🙂\n" * 2

pytestmark = pytest.mark.usefixtures("no_engine")


@pytest.fixture
def real(build_engine, monkeypatch, tokenizer, tmp_path):
    """A memory file that the tiny model made, and its memory."""
    memory = build_engine().compress(TEXT, ratio=4, name="tin.txt")
    monkeypatch.setattr(models, "load_tokenizer", lambda base: tokenizer)
    path = tmp_path / "tin.icae"
    memory.save(path)
    return path, memory


def test_weakest_passages_are_printed_with_what_is_lost(icae, real) -> None:
    path, memory = real
    payload = json.loads(icae("inspect", path, "--passages", 2, "--json").stdout)

    fidelity = [span.fidelity for span in memory.spans]
    assert [p["fidelity"] for p in payload["passages"]] == sorted(fidelity)[:2]
    for passage in payload["passages"]:
        span = memory.spans[passage["span"]]
        assert passage["text"] == memory.span_source(passage["span"])
        assert bool(passage["lost"]) == (span.fidelity < 1)
    text = icae("inspect", path, "--passages", 2).stdout
    assert "⟦" in text
    assert "Weakest passages" in text


def test_page_is_written_once_and_shows_the_text(icae, real, tmp_path) -> None:
    path, _ = real
    target = tmp_path / "tin.html"
    result = icae("inspect", path, "--html", target)

    assert result.exit_code == 0, result.output
    page = target.read_text(encoding="utf-8")
    assert "tin.txt" in page
    assert "whole spans only" not in page
    assert icae("inspect", path, "--html", target).exit_code == 1
    assert icae("inspect", path, "--html", target, "--force").exit_code == 0
    assert icae("inspect", path, "--html", path, "--force").exit_code == 1


def test_tokens_of_a_slice_are_known_where_every_span_fits(icae, real, tmp_path) -> None:
    _, memory = real
    part = memory.slice(40, 120)
    assert part.documents[0].token_ids_sha256 is None
    part.save(tmp_path / "part.icae")
    payload = json.loads(icae("inspect", tmp_path / "part.icae", "--passages", 1, "--json").stdout)
    assert payload["passages"][0]["lost"] is not None


def test_text_of_other_tokens_is_shaded_by_spans(icae, real, tmp_path) -> None:
    path, memory = real
    document = replace(memory.documents[0], token_ids_sha256="0" * 64)
    replace(memory, documents=(document,)).save(path)
    payload = json.loads(icae("inspect", path, "--passages", 1, "--json").stdout)
    assert payload["passages"][0]["lost"] is None
    icae("inspect", path, "--html", tmp_path / "x.html")
    assert "whole spans only" in (tmp_path / "x.html").read_text(encoding="utf-8")


def test_tokenizer_of_another_model_is_refused(icae, real, monkeypatch) -> None:
    monkeypatch.setattr(models, "tokenizer_hash", lambda tokenizer: "f" * 64)
    result = icae("inspect", real[0], "--passages", 1, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "IncompatibleMemoryError"


def test_memory_without_text_has_no_passages(icae, bare_memory_file) -> None:
    result = icae("inspect", bare_memory_file, "--html", "x.html", "--json")
    assert result.exit_code == 1
    assert "--html needs the text" in json.loads(result.stdout)["error"]["message"]


def test_plain_inspection_loads_no_tokenizer(icae, memory_file, monkeypatch) -> None:
    def refuse(base: str) -> None:
        raise AssertionError("a tokenizer was loaded")

    monkeypatch.setattr(models, "load_tokenizer", refuse)
    assert icae("inspect", memory_file).exit_code == 0
    assert Memory.load(memory_file).fidelity is not None


def test_neighbouring_lost_tokens_are_marked_as_one() -> None:
    lost = [[1, 2], [2, 4], [5, 6]]
    assert marked_text("abcdefg", lost, colour=False).plain == "a⟦bcd⟧e⟦f⟧g"
    coloured = marked_text("abc\x1bd", [[0, 1]], colour=True)
    assert coloured.plain == "abc\ufffdd"
    assert [(s.start, s.end) for s in coloured.spans] == [(0, 1)]
