"""A base quantised by bitsandbytes: 4 bits go through the whole loop, 8 bits are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.bases.architectures import tiny
from tests.bases.loop import loop
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from icae.model.base import weight_hash

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: 4 bits go untested")


def quantised(folder: Path, **settings: Any) -> Any:
    if not folder.exists():
        tiny("Llama").save_pretrained(folder)
    config = BitsAndBytesConfig(**settings)
    return AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, device_map="cpu", dtype=torch.float32
    )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["embeddings", "key-values"])
def test_a_base_of_4_bits_goes_through_the_whole_loop(
    form: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "loop").mkdir()
    base = quantised(
        tmp_path / "whole",
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
    )
    assert loop(base, tokenizer, form, tmp_path / "loop") == "yes"
    before = weight_hash(base)
    base.model.layers[0].mlp.up_proj.weight.quant_state.absmax.mul_(2)
    assert weight_hash(base) != before


def test_a_base_of_8_bits_is_refused_because_rows_are_rounded_together(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "loop").mkdir()
    base = quantised(tmp_path / "whole", load_in_8bit=True)
    assert re.match(r"cache: off by \d", loop(base, tokenizer, "embeddings", tmp_path / "loop"))
