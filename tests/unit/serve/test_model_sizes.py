from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icae.errors import BaseModelError
from icae.serve.model_sizes import ModelSizes

LLAMA = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}


def test_sizes_that_a_config_leaves_out_follow_from_the_others() -> None:
    sizes = ModelSizes.of_config({k: v for k, v in LLAMA.items() if k != "num_key_value_heads"})
    assert sizes.kv_heads == 9
    assert sizes.head_size == 64


def test_text_part_counts_in_a_model_for_text_and_images() -> None:
    assert ModelSizes.of_config({"text_config": LLAMA}) == ModelSizes.of_config(LLAMA)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": None},
        {"hidden_size": "576"},
        {"vocab_size": 0},
        {"num_attention_heads": True},
        {"num_experts": 8},
        {"kv_lora_rank": 512},
    ],
)
def test_config_whose_cost_cannot_be_told_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BaseModelError):
        ModelSizes.of_config(LLAMA | change)


@pytest.mark.parametrize("content", ["[]", "{", None])
def test_file_that_is_no_config_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(BaseModelError, match=r"config\.json"):
        ModelSizes.of_file(path)


def test_sizes_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA), encoding="utf-8")
    assert ModelSizes.of_file(path).mlp == 1536
