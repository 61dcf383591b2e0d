"""benchmarks/average_adapters.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def script(benchmark_script: Any) -> Any:
    return benchmark_script("average_adapters")


def folder(path: Path, value: float, *, width: int = 3) -> Path:
    (path / "lora").mkdir(parents=True)
    (path / "icae.json").write_text(f"{value}")
    for name in ("lora/adapter_model.safetensors", "icae.safetensors"):
        save_file({"w": torch.full((2, width), value)}, path / name)
    return path


def test_weights_are_mixed_by_share_and_the_record_is_the_seconds(script, tmp_path) -> None:
    first, second = folder(tmp_path / "a", 1.0), folder(tmp_path / "b", 3.0)
    script.average(first, second, tmp_path / "out", share=0.25)
    for name in script.ADAPTER.weights:
        assert torch.equal(load_file(tmp_path / "out" / name)["w"], torch.full((2, 3), 1.5))
    assert (tmp_path / "out" / "icae.json").read_text() == "3.0"


def test_adapters_of_another_architecture_are_refused(script, tmp_path) -> None:
    first, second = folder(tmp_path / "a", 1.0), folder(tmp_path / "b", 3.0, width=4)
    with pytest.raises(ValueError, match="differ in architecture"):
        script.average(first, second, tmp_path / "out", share=0.5)
