from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

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
    def load_tokenizer(base: str) -> WordTokenizer:
        if base != "tiny":
            raise BaseModelError("No such model.", got=base)
        return WordTokenizer()

    monkeypatch.setattr("icae.model.base.load_tokenizer", load_tokenizer)
    monkeypatch.setattr("icae.model.base_files.tokenizer_hash", lambda tokenizer: "hash of tiny")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    draw = random.Random(0)
    for name, count in (("a", 20), ("b", 10)):
        with (tmp_path / f"{name}.jsonl").open("w") as stream:
            for _ in range(count):
                text = " ".join(f"word{draw.randrange(999)}" for _ in range(50))
                stream.write(json.dumps({"text": text}) + "\n")
    path = tmp_path / "build.yaml"
    path.write_text(
        f"base: tiny\nvalidation_share: 0\nsources:\n"
        f"  - {{name: big, weight: 2, paths: [{tmp_path}/a.jsonl]}}\n"
        f"  - {{name: small, weight: 1, paths: [{tmp_path}/b.jsonl]}}\n"
    )
    return path


def test_sources_of_a_build_and_their_shares_are_listed(icae, config, tmp_path) -> None:
    result = icae("data", "build", config, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["big", "20", "1,000", "66.7", "%", "66.7", "%", "1.00"] in rows
    assert ["small", "10", "500", "33.3", "%", "33.3", "%", "1.00"] in rows
    assert ["all", "30", "1,500"] in rows
    assert ShardSet.open(tmp_path / "out" / "train").tokenizer_hash == "hash of tiny"
    payload = json.loads(icae("data", "build", config, "-o", tmp_path / "json", "--json").stdout)
    assert payload.pop("output") == str(tmp_path / "json")
    assert payload == json.loads((tmp_path / "json" / "report.json").read_text())
    assert [source["train_tokens"] for source in payload["sources"]] == [1000, 500]


def test_source_that_is_too_small_is_named_on_stderr(icae, config, tmp_path) -> None:
    config.write_text(config.read_text() + "tokens: 3000\n")
    result = icae("data", "build", config, "-o", tmp_path / "out")
    assert "small is too small: 500 tokens missing" in result.stderr


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


def test_json_of_a_pack_holds_tokens_of_each_source(icae, corpus, tmp_path) -> None:
    target = tmp_path / "shards"
    options = ("-o", target, "--base", "tiny", "--min-tokens", 1, "--limit", 2, "--json")
    payload = json.loads(icae("data", "pack", corpus, *options).stdout)
    assert payload.pop("seconds") >= 0
    assert payload == {
        "documents": 2,
        "tokens": 8,
        "sources": {"a": 5, "b": 3},
        "tokenizer_hash": "hash of tiny",
        "output": str(target),
        "base": "tiny",
    }


def test_target_in_use_and_unknown_base_are_reported(icae, corpus, tmp_path) -> None:
    result = icae("data", "pack", corpus, "-o", corpus, "--base", "tiny")
    assert (result.exit_code, "not an empty folder" in result.stderr) == (1, True)
    result = icae("data", "pack", corpus, "-o", tmp_path / "x", "--base", "absent", "--json")
    assert (result.exit_code, json.loads(result.stdout)["error"]["got"]) == (1, "absent")
