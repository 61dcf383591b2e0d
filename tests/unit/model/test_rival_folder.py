from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from icae.config import ModelConfig
from icae.errors import AdapterError
from icae.model import (
    RIVAL_MODELS,
    RivalInfo,
    Sample,
    load_rival,
    read_info,
    read_rival_info,
    rival_hash,
    save_rival,
    weight_hash,
)
from icae.model.objectives import autoencoding

CONFIG = ModelConfig(span_length=16, lora_rank=4, lora_alpha=8.0, max_slots=16)
METHODS = sorted(RIVAL_MODELS)


@pytest.fixture
def decoder(build_decoder: Callable[..., Any]) -> Any:
    return build_decoder()


@pytest.fixture
def saved(decoder: Any, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """``saved(method)``: a rival as if trained, and its folder."""

    def build(method: Any) -> tuple[Any, Path]:
        model = RIVAL_MODELS[method](decoder, CONFIG, seed=3)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.trainable().values():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        info = RivalInfo(
            method=method,
            name="tiny rival",
            base_model="tiny-base",
            base_hash=weight_hash(decoder),
            tokenizer_hash="t",
            model=CONFIG,
            ratios=(2.0,),
            data={"corpus": "9 tokens"},
            metrics={"ae_loss": 1.5},
        )
        return model, save_rival(model, info, tmp_path / method)

    return build


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_rival_gives_the_same_losses(
    saved: Any, decoder: Any, random_ids: Callable[..., Any], method: str
) -> None:
    model, folder = saved(method)
    loaded, info = load_rival(
        folder, decoder, base_model="tiny-base", base_hash=weight_hash(decoder)
    )
    assert info == read_rival_info(folder)
    ids = random_ids(24)
    sample = Sample(context_ids=ids, ratio=4.0, tasks=(autoencoding(ids),))
    with torch.no_grad():
        assert torch.equal(loaded([sample])[0].loss_sum, model.eval()([sample])[0].loss_sum)


@pytest.mark.parametrize("method", METHODS)
def test_its_lora_is_a_standard_peft_folder_with_a_card(saved: Any, method: str) -> None:
    from peft import LoraConfig

    _, folder = saved(method)
    assert LoraConfig.from_pretrained(str(folder)).r == 4
    card = (folder / "README.md").read_text(encoding="utf-8")
    for text in ("# tiny rival", "frozen decoder", "9 tokens", "ae_loss", "2x"):
        assert text in card


def test_a_rival_and_an_adapter_are_never_taken_for_each_other(
    saved: Any, saved_adapter: Path
) -> None:
    _, folder = saved("gist")
    with pytest.raises(AdapterError, match="not an adapter folder") as caught:
        read_info(folder)
    assert "--trained" in str(caught.value.fix)
    with pytest.raises(AdapterError, match="not the folder of a trained rival") as caught:
        read_rival_info(saved_adapter)
    assert "--adapter" in str(caught.value.fix)


def test_a_rival_of_another_base_is_refused(saved: Any, build_decoder: Callable[..., Any]) -> None:
    _, folder = saved("autocompressor")
    other = build_decoder(seed=5)
    with pytest.raises(AdapterError, match=r"AutoCompressor in .* another base model"):
        load_rival(folder, other, base_model="other", base_hash=weight_hash(other))


@pytest.mark.parametrize("change", [{"format": "x"}, {"version": 2}, {"method": "icae"}])
def test_a_record_that_was_changed_is_refused(saved: Any, change: dict[str, Any]) -> None:
    _, folder = saved("gist")
    record = json.loads((folder / "rival.json").read_text())
    (folder / "rival.json").write_text(json.dumps(record | change))
    with pytest.raises(AdapterError):
        read_rival_info(folder)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "rival.safetensors"])
def test_damaged_weights_are_refused(saved: Any, decoder: Any, file: str) -> None:
    _, folder = saved("gist")
    digest = rival_hash(folder)
    weights = folder / file
    weights.write_bytes(weights.read_bytes()[:-9])
    assert rival_hash(folder) != digest
    with pytest.raises(AdapterError, match="damaged"):
        load_rival(folder, decoder, base_model="tiny-base", base_hash=weight_hash(decoder))


def test_weights_of_the_other_method_do_not_fit(saved: Any, decoder: Any) -> None:
    _, folder = saved("gist")
    record = json.loads((folder / "rival.json").read_text())
    (folder / "rival.json").write_text(json.dumps(record | {"method": "autocompressor"}))
    with pytest.raises(AdapterError, match="do not fit the model"):
        load_rival(folder, decoder, base_model="tiny-base", base_hash=weight_hash(decoder))
