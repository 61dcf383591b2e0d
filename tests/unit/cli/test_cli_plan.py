from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SIZES = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SIZES), encoding="utf-8")
    return path


def planned(icae: Any, *arguments: object) -> Any:
    result = icae("plan", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_plan_of_a_config_counts_documents_slots_and_bytes(
    icae: Any, config: Path, no_model: None
) -> None:
    made = planned(icae, config, "--documents", 10, "--tokens", 1024, "--ratio", 8)
    assert made["slots"] == 128
    assert made["span_length"] == 512
    assert made["all"]["slots"] == 1280
    assert made["kv_bytes"] == {"full": 131072 * 1024, "slots": 131072 * 128}
    assert made["file_bytes"] > 128 * 4096 * 2
    assert made["all"]["file_bytes"] == 10 * made["file_bytes"]
    assert made["break_even_questions"] > 1


def test_folder_of_a_model_stands_for_its_config(icae: Any, config: Path) -> None:
    assert planned(icae, config.parent)["slots"] == planned(icae, config)["slots"]


def test_devices_share_the_hours(icae: Any, config: Path) -> None:
    made = planned(icae, config, "--tflops", 100, "--devices", 4)
    assert made["hours"] == pytest.approx(made["device_hours"] / 4)
    flop = made["compress_tflop"] * made["documents"]
    assert made["device_hours"] == pytest.approx(flop / 100 / 3600)


def test_measured_tokens_a_second_decide_the_hours(icae: Any, config: Path) -> None:
    made = planned(icae, config, "--tokens-per-second", 500, "--documents", 9, "--tokens", 1000)
    assert made["device_hours"] == pytest.approx(9 * 1000 / 500 / 3600)


def test_without_fidelity_and_source_a_memory_costs_less(icae: Any, config: Path) -> None:
    whole, bare = planned(icae, config), planned(icae, config, "--no-verify", "--no-source")
    assert bare["compress_tflop"] < whole["compress_tflop"]
    assert bare["file_bytes"] < whole["file_bytes"]


def test_span_length_of_an_adapter_is_read_and_can_be_changed(
    icae: Any, config: Path, saved_adapter: Path
) -> None:
    assert planned(icae, config, "--adapter", saved_adapter)["span_length"] == 16
    changed = planned(icae, config, "--adapter", saved_adapter, "--span-length", 64)
    assert changed["span_length"] == 64


def test_plan_for_people_names_both_columns_and_the_break_even(icae: Any, config: Path) -> None:
    result = icae("plan", config, "--documents", 2000)
    assert result.exit_code == 0
    assert "a document" in result.stdout
    assert "2,000 documents" in result.stdout
    assert "questions a document" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [("--tflops", 0), ("--tflops", 1, "--tokens-per-second", 1), ("--ratio", 0.5)],
)
def test_wrong_numbers_are_refused_with_the_reason(
    icae: Any, config: Path, arguments: tuple[object, ...]
) -> None:
    result = icae("plan", config, *arguments)
    assert result.exit_code == 1
    assert "expected" in result.stderr


def test_model_that_is_nowhere_is_refused(
    icae: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    def nowhere(*_: Any, **__: Any) -> str:
        raise OSError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nowhere)
    result = icae("plan", "no/such-model")
    assert result.exit_code == 1
    assert "Cannot load the base model no/such-model" in result.stderr


def test_of_a_hub_model_only_the_config_is_fetched(
    icae: Any, monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def fetch(hub_id: str, *, allow_patterns: Any, local_files_only: bool = False) -> str:
        asked.append((hub_id, allow_patterns))
        return str(config.parent)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    planned(icae, "someone/llm")
    assert asked == [("someone/llm", ["config.json"])]
