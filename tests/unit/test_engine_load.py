from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig

import icae
from icae import engine as api
from icae.compression import other_weights
from icae.engine import Engine
from icae.errors import AdapterError, IncompatibleMemoryError, InputError
from icae.model import adapter_files
from icae.model.adapter import save_adapter
from icae.model.adapter_files import read_info, write_info
from icae.model.base import computation_hash
from icae.model.base_files import tokenizer_hash

TEXT = "The inner thing is in the thin tin: a thief ran there, and the end is near.\n" * 2


@pytest.fixture
def folders(
    tmp_path: Path, model: Any, tokenizer: Any, info_for: Callable[..., Any]
) -> tuple[Path, Path]:
    """A base model and an adapter for it, on disk."""
    base = tmp_path / "base"
    model.decoder.save_pretrained(base)
    tokenizer.save_pretrained(base)
    return base, save_adapter(model, info_for(model, tokenizer, base=str(base)), tmp_path / "a")


def test_load_gives_an_engine_that_makes_the_same_memories(
    folders: tuple[Path, Path], engine: Engine, tokenizer: Any
) -> None:
    base, adapter = folders
    loaded = icae.load(adapter, device="cpu", dtype="float32")

    assert loaded.name == "tiny"
    assert loaded.provenance.base_model == str(base)
    assert loaded.provenance.tokenizer_hash == tokenizer_hash(tokenizer)
    assert loaded.provenance.slot_dtype == "float32"
    memory = loaded.compress(TEXT, ratio=4)
    np.testing.assert_array_equal(memory.slots, engine.compress(TEXT, ratio=4).slots)


def test_load_in_bfloat16_makes_memories_that_say_so(folders: tuple[Path, Path]) -> None:
    engine = icae.load(folders[1], device="cpu", dtype="bfloat16")
    memory = engine.compress(TEXT, ratio=4)

    assert engine.runtime.model.dtype == torch.bfloat16
    assert memory.provenance.slot_dtype == "bfloat16"
    assert engine.ask(memory, "Who?", max_new_tokens=2).answer_tokens <= 2


def test_load_refuses_an_adapter_of_another_base(
    folders: tuple[Path, Path], build_decoder: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    build_decoder(seed=9).save_pretrained(other)
    tokenizer.save_pretrained(other)

    with pytest.raises(AdapterError, match="another base model") as caught:
        icae.load(folders[1], base=str(other), device="cpu", dtype="float32")
    assert str(other) in str(caught.value.got)
    with pytest.raises(AdapterError, match="not an adapter folder"):
        icae.load(tmp_path / "none")
    with pytest.raises(InputError, match="dtype"):
        icae.load(folders[1], device="cpu", dtype="int8")


def test_other_weights_of_the_same_kind_are_taken_with_a_warning_and_measured(
    folders: tuple[Path, Path],
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    near = copy.deepcopy(engine.runtime.model.decoder)
    with torch.no_grad():
        for weight in near.parameters():
            weight += 0.001 * torch.randn_like(weight)
    near.save_pretrained(tmp_path / "near")
    engine.tokenizer.save_pretrained(tmp_path / "near")
    options = {"base": str(tmp_path / "near"), "device": "cpu", "dtype": "float32"}
    with pytest.raises(AdapterError, match="another base model") as caught:
        icae.load(folders[1], **options)
    assert "recall" in str(caught.value.got)

    monkeypatch.setattr(other_weights, "LEAST_FIDELITY", 0.0)  # nothing was learned here
    loaded = icae.load(folders[1], **options)
    assert "other weights than tiny was trained on: fidelity" in caplog.text
    made = loaded.compress(TEXT, ratio=4)
    assert made.provenance.base_hash != engine.provenance.base_hash
    with pytest.raises(IncompatibleMemoryError):
        engine.ask(made, "Who?", max_new_tokens=2)


def test_other_settings_of_a_base_are_refused(folders: tuple[Path, Path]) -> None:
    base, adapter = folders
    info = read_info(adapter)
    settings = computation_hash(AutoConfig.from_pretrained(base))
    write_info(replace(info, base_settings=settings), adapter)
    icae.load(adapter, device="cpu", dtype="float32")

    config = json.loads((base / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] *= 2
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="other settings"):
        icae.load(adapter, device="cpu", dtype="float32")


def test_the_module_functions_load_the_adapter_of_the_memory_once(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = icae.load(folders[1], device="cpu", dtype="float32")
    loads: list[Path] = []
    monkeypatch.setattr(api, "load", lambda folder: loads.append(folder) or engine)
    monkeypatch.setattr(adapter_files, "ADAPTERS", folders[1].parent)
    api._loaded.cache_clear()
    try:
        memory = icae.compress(TEXT, ratio=4, name="n")
        answer = icae.ask(memory, "Who?", max_new_tokens=2)
        written = icae.reconstruct(memory, spans=[1])
    finally:
        api._loaded.cache_clear()

    assert loads == [folders[1]]
    assert memory == engine.compress(TEXT, ratio=4, name="n")
    assert answer.text == engine.ask(memory, "Who?", max_new_tokens=2).text
    assert written == engine.reconstruct(memory, spans=[1])
