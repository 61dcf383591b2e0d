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


def test_plan_of_a_config_counts_documents_slots_and_bytes(
    payload: Any, config: Path, no_model: None
) -> None:
    asked = ("--documents", 10, "--tokens", 1024, "--ratio", 8)
    made = payload("plan", config, *asked)
    assert (made["slots"], made["span_length"], made["all"]["slots"]) == (128, 512, 1280)
    assert made["kv_bytes"] == {"full": 131072 * 1024, "slots": 131072 * 128}
    assert made["file_bytes"] > 128 * 4096 * 2
    assert made["all"]["file_bytes"] == 10 * made["file_bytes"]
    assert made["break_even_questions"] > 1
    assert payload("plan", config.parent, *asked) == {**made, "model": str(config.parent)}
    bare = payload("plan", config, *asked, "--no-verify", "--no-source")
    assert bare["compress_tflop"] < made["compress_tflop"]
    assert bare["file_bytes"] < made["file_bytes"]


def test_hours_follow_from_the_speed_of_the_devices(payload: Any, config: Path) -> None:
    made = payload("plan", config, "--tflops", 100, "--devices", 4)
    assert made["hours"] == pytest.approx(made["device_hours"] / 4)
    flop = made["compress_tflop"] * made["documents"]
    assert made["device_hours"] == pytest.approx(flop / 100 / 3600)
    asked = ("--tokens-per-second", 500, "--documents", 9, "--tokens", 1000)
    assert payload("plan", config, *asked)["device_hours"] == pytest.approx(9 * 1000 / 500 / 3600)


def test_span_length_of_an_adapter_is_read_and_can_be_changed(
    payload: Any, config: Path, saved_adapter: Path
) -> None:
    asked = ("plan", config, "--adapter", saved_adapter)
    assert payload(*asked)["span_length"] == 16
    assert payload(*asked, "--span-length", 64)["span_length"] == 64


def test_of_a_hub_model_only_the_config_is_fetched(
    payload: Any, error: Any, monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def fetch(hub_id: str, *, allow_patterns: Any, **_: Any) -> str:
        asked.append((hub_id, allow_patterns))
        if hub_id == "no/such-model":
            raise OSError("no connection")
        return str(config.parent)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    payload("plan", "someone/llm")
    assert asked == [("someone/llm", ["config.json"])]
    refused = error("plan", "no/such-model")
    assert "Cannot load the base model no/such-model" in refused["message"]


def test_layers_with_a_window_keep_no_more_than_it(payload: Any, tmp_path: Path) -> None:
    full = payload("plan", write(tmp_path, {}), "--tokens", 1024)["kv_bytes"]["full"]
    window: dict[str, Any] = {"sliding_window": 257}
    for settings, layers in (
        ({}, 32),
        ({"layer_types": ["sliding_attention", "full_attention"] * 16}, 16),
    ):
        made = payload("plan", write(tmp_path, window | settings), "--tokens", 1024)
        assert made["kv_bytes"]["full"] == full * (32 - layers + layers / 4) / 32


def write(folder: Path, settings: dict[str, Any]) -> Path:
    """A config.json of `SIZES` and more."""
    path = folder / "config.json"
    path.write_text(json.dumps(SIZES | settings), encoding="utf-8")
    return path
