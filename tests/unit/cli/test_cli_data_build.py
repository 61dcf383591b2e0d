from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from icae.cli import engine
from icae.data.shards import ShardSet


class WordTokenizer:
    """One id for each word."""

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}

    def __len__(self) -> int:
        return 100


@pytest.fixture(autouse=True)
def _fake_tokenizer(monkeypatch) -> None:
    monkeypatch.setattr(engine, "open_tokenizer", lambda base: (WordTokenizer(), f"hash of {base}"))


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


def test_sources_and_their_shares_are_listed(icae, config, tmp_path) -> None:
    result = icae("data", "build", config, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["big", "20", "1,000", "66.7", "%", "66.7", "%", "1.00"] in rows
    assert ["small", "10", "500", "33.3", "%", "33.3", "%", "1.00"] in rows
    assert ["all", "30", "1,500"] in rows
    assert ShardSet.open(tmp_path / "out" / "train").tokenizer_hash == "hash of tiny"


def test_json_is_the_report(icae, config, tmp_path) -> None:
    result = icae("data", "build", config, "-o", tmp_path / "out", "--json")
    payload = json.loads(result.stdout)
    assert payload.pop("output") == str(tmp_path / "out")
    assert payload == json.loads((tmp_path / "out" / "report.json").read_text())
    assert [source["train_tokens"] for source in payload["sources"]] == [1000, 500]


def test_running_it_again_prints_the_same(icae, config, tmp_path) -> None:
    first = icae("data", "build", config, "-o", tmp_path / "out")
    assert icae("data", "build", config, "-o", tmp_path / "out").stdout == first.stdout


def test_source_that_is_too_small_is_named_on_stderr(icae, config, tmp_path) -> None:
    config.write_text(config.read_text() + "tokens: 3000\n")
    result = icae("data", "build", config, "-o", tmp_path / "out")
    assert "small is too small: 500 tokens missing" in result.stderr


def test_unknown_key_is_reported(icae, config, tmp_path) -> None:
    config.write_text(config.read_text() + "sede: 1\n")
    result = icae("data", "build", config, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["got"] == "sede"


def test_output_is_required(icae, config) -> None:
    assert icae("data", "build", config).exit_code == 2
