from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icae.cli import engine
from icae.data.shards import ShardSet
from icae.errors import BaseModelError


class WordTokenizer:
    """One id for each word."""

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}

    def __len__(self) -> int:
        return 100


@pytest.fixture(autouse=True)
def _fake_tokenizer(monkeypatch) -> None:
    def open_tokenizer(base: str) -> tuple[WordTokenizer, str]:
        if base != "tiny":
            raise BaseModelError("No such model.", got=base)
        return WordTokenizer(), "hash-of-tiny"

    monkeypatch.setattr(engine, "open_tokenizer", open_tokenizer)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("one two three four five", encoding="utf-8")
    (folder / "b.txt").write_text("six seven eight", encoding="utf-8")
    (folder / "c.txt").write_text("nine", encoding="utf-8")
    return folder


def test_corpus_is_packed_and_its_sources_are_listed(icae, corpus, tmp_path) -> None:
    target = tmp_path / "shards"
    result = icae("data", "pack", corpus, "-o", target, "--base", "tiny", "--min-tokens", 2)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["a", "5"] in rows
    assert ["b", "3"] in rows
    assert ["all", "8"] in rows
    assert ShardSet.open(target).documents == 2


def test_json_holds_tokens_of_each_source(icae, corpus, tmp_path) -> None:
    target = tmp_path / "shards"
    options = ("-o", target, "--base", "tiny", "--min-tokens", 1, "--limit", 2, "--json")
    payload = json.loads(icae("data", "pack", corpus, *options).stdout)
    assert payload.pop("seconds") >= 0
    assert payload == {
        "documents": 2,
        "tokens": 8,
        "sources": {"a": 5, "b": 3},
        "tokenizer_hash": "hash-of-tiny",
        "output": str(target),
        "base": "tiny",
    }


def test_target_in_use_is_refused_before_the_tokenizer_is_loaded(icae, corpus) -> None:
    result = icae("data", "pack", corpus, "-o", corpus, "--base", "no such base")
    assert result.exit_code == 1
    assert "in use" in result.stderr


def test_unknown_base_is_reported(icae, corpus, tmp_path) -> None:
    result = icae("data", "pack", corpus, "-o", tmp_path / "x", "--base", "absent", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["got"] == "absent"


@pytest.mark.parametrize("left_out", ["-o", "--base"])
def test_output_and_base_are_required(icae, corpus, tmp_path, left_out) -> None:
    options = {"-o": str(tmp_path / "x"), "--base": "tiny"}
    del options[left_out]
    arguments = [part for pair in options.items() for part in pair]
    assert icae("data", "pack", corpus, *arguments).exit_code == 2
