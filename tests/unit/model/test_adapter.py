from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from icae.errors import AdapterError
from icae.model import (
    IcaeModel,
    adapter_hash,
    load_adapter,
    load_weights,
    read_info,
    save_adapter,
    tokenizer_hash,
    weight_hash,
)


def slots_of(model: IcaeModel, ids: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_spans([ids], [4])[0]


def edit_json(folder: Path, **changes: Any) -> None:
    path = folder / "icae.json"
    record = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(record))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("head", ["plain", "gain", "residual", "linear"])
@pytest.mark.parametrize("embedding", ["shared", "per-slot"])
def test_a_saved_adapter_gives_identical_slots_and_scores(
    build_model: Any,
    build_decoder: Any,
    tokenizer: Any,
    info_for: Any,
    random_ids: Any,
    tmp_path: Path,
    head: str,
    embedding: str,
) -> None:
    model = build_model(slot_head=head, memory_embedding=embedding)
    info = info_for(model, tokenizer)
    folder = save_adapter(model, info, tmp_path / "a" / "b")

    decoder = build_decoder()
    loaded, read = load_adapter(folder, decoder, base_model="x", base_hash=weight_hash(decoder))

    assert read == info
    assert read.tokenizer_hash == tokenizer_hash(tokenizer)
    ids = random_ids(16)
    assert torch.equal(slots_of(loaded, ids), slots_of(model, ids))
    for name in ("ae", "lm", "ft"):
        assert torch.equal(loaded.tokens.objective(name), model.tokens.objective(name))


def test_the_calibration_is_part_of_the_adapter(
    build_model: Any, tokenizer: Any, info_for: Any, random_ids: Any, tmp_path: Path
) -> None:
    model = build_model(slot_head="gain")
    before = slots_of(model, random_ids(16))
    model.calibrate([random_ids(16, seed) for seed in range(4)], [8] * 4)
    folder = save_adapter(model, info_for(model, tokenizer), tmp_path / "a")

    loaded = build_model(slot_head="gain", trained=False)
    load_weights(loaded, folder)

    slots = slots_of(loaded, random_ids(16))
    assert torch.equal(slots, slots_of(model, random_ids(16)))
    assert not torch.allclose(slots, before, atol=1e-2)


def test_an_adapter_round_trips_in_every_family(
    family: str,
    build_model: Any,
    build_decoder: Any,
    tokenizer: Any,
    info_for: Any,
    random_ids: Any,
    tmp_path: Path,
) -> None:
    model = build_model(family)
    folder = save_adapter(model, info_for(model, tokenizer), tmp_path / "a")
    decoder = build_decoder(family)

    loaded, _ = load_adapter(folder, decoder, base_model="x", base_hash=weight_hash(decoder))

    assert torch.equal(slots_of(loaded, random_ids(16)), slots_of(model, random_ids(16)))


def test_the_lora_folder_loads_through_plain_peft(
    saved_adapter: Path, model: Any, build_decoder: Any, random_ids: Any
) -> None:
    from peft import PeftModel

    plain = PeftModel.from_pretrained(build_decoder(), str(saved_adapter / "lora")).eval()

    ids = torch.as_tensor(random_ids(12))[None]
    with torch.no_grad():
        expected = model.lora(input_ids=ids).logits
        base = model.decoder(input_ids=ids).logits
        assert torch.equal(plain(input_ids=ids).logits, expected)
    assert not torch.allclose(expected, base, atol=1e-2)


def test_the_lora_file_holds_query_and_value_only(saved_adapter: Path) -> None:
    keys = load_file(saved_adapter / "lora" / "adapter_model.safetensors").keys()

    assert len(keys) == 2 * 2 * 2  # layers, projections, A and B
    assert all(".q_proj.lora_" in key or ".v_proj.lora_" in key for key in keys)
    targets = json.loads((saved_adapter / "lora" / "adapter_config.json").read_text())
    assert sorted(targets["target_modules"]) == ["q_proj", "v_proj"]


def test_another_base_is_refused_with_both_names(saved_adapter: Path, build_decoder: Any) -> None:
    other = build_decoder(seed=5)

    with pytest.raises(AdapterError, match="another base model") as caught:
        load_adapter(saved_adapter, other, base_model="other-base", base_hash=weight_hash(other))

    text = str(caught.value)
    assert "other-base" in text
    assert "tiny-base" in text


@pytest.mark.parametrize("part", ["icae.safetensors", "lora/adapter_model.safetensors"])
def test_a_truncated_or_missing_weight_file_is_refused(
    saved_adapter: Path, model: Any, part: str
) -> None:
    truncate(saved_adapter / part)
    with pytest.raises(AdapterError, match="damaged"):
        load_weights(model, saved_adapter)

    (saved_adapter / part).unlink()
    with pytest.raises(AdapterError, match="damaged"):
        load_weights(model, saved_adapter)
    with pytest.raises(AdapterError, match="damaged"):
        adapter_hash(saved_adapter)


def test_a_folder_without_json_is_not_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="not an adapter folder") as caught:
        read_info(tmp_path)

    assert "icae.json" in str(caught.value.expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "another format version"),
        ({"format": "other"}, "not an icae adapter"),
        ({"surprise": 1}, "unknown key"),
        ({"base_hash": 7}, "base_hash"),
        ({"model": {"layout": "spiral"}}, "model: layout"),
        ({"metrics": {"ae_loss": "low"}}, "metrics"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    saved_adapter: Path, change: dict[str, Any], message: str
) -> None:
    edit_json(saved_adapter, **change)

    with pytest.raises(AdapterError, match=message):
        read_info(saved_adapter)


@pytest.mark.parametrize("text", ["{", "[]", "", '"icae-adapter"'])
def test_a_damaged_record_is_refused(saved_adapter: Path, text: str) -> None:
    (saved_adapter / "icae.json").write_text(text)

    with pytest.raises(AdapterError):
        read_info(saved_adapter)


@pytest.mark.parametrize(
    "settings", [{"lora_rank": 2}, {"slot_head": "linear"}, {"memory_embedding": "per-slot"}]
)
def test_weights_of_another_architecture_are_refused(
    saved_adapter: Path, build_model: Any, settings: dict[str, Any]
) -> None:
    with pytest.raises(AdapterError, match="do not fit"):
        load_weights(build_model(**settings), saved_adapter)


def test_a_missing_or_additional_tensor_is_refused(saved_adapter: Path, model: Any) -> None:
    path = saved_adapter / "icae.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != "head.gain_D"}, path)
    with pytest.raises(AdapterError, match="do not fit") as caught:
        load_weights(model, saved_adapter)
    assert "gain_D" in str(caught.value)

    save_file({**tensors, "tokens.extra": torch.ones(1)}, path)
    with pytest.raises(AdapterError, match="do not fit"):
        load_weights(model, saved_adapter)


def test_refused_weights_leave_the_model_as_it_was(saved_adapter: Path, build_model: Any) -> None:
    model = build_model(lora_rank=2)
    before = copy.deepcopy(model.state_dict())

    with pytest.raises(AdapterError):
        load_weights(model, saved_adapter)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_adapter_hash_changes_with_the_weights_and_the_architecture(
    saved_adapter: Path, model: Any, tokenizer: Any, info_for: Any, tmp_path: Path
) -> None:
    first = adapter_hash(saved_adapter)
    copied = Path(shutil.copytree(saved_adapter, tmp_path / "moved"))
    assert adapter_hash(copied) == first
    edit_json(copied, name="renamed", commit="abc")
    assert adapter_hash(copied) == first

    record = json.loads((copied / "icae.json").read_text())
    edit_json(copied, model={**record["model"], "layout": "uniform"})
    hashes = {first, adapter_hash(copied)}
    for name in ("tokens.objective_ND", "lora.base_model.model.model.layers.0.self_attn.q_proj"):
        with torch.no_grad():
            next(p for n, p in model.trainable().items() if n.startswith(name)).add_(0.01)
        hashes.add(adapter_hash(save_adapter(model, info_for(model, tokenizer), copied)))

    assert len(hashes) == 4


def test_saving_again_replaces_the_files(
    saved_adapter: Path, build_model: Any, tokenizer: Any, info_for: Any, random_ids: Any
) -> None:
    other = build_model(slot_head="linear")
    save_adapter(other, info_for(other, tokenizer, name="second"), saved_adapter)

    assert read_info(saved_adapter).name == "second"
    again = build_model(slot_head="linear", trained=False)
    load_weights(again, saved_adapter)
    assert torch.equal(slots_of(again, random_ids(9)), slots_of(other, random_ids(9)))


def test_the_model_card_says_what_the_adapter_is(saved_adapter: Path) -> None:
    card = (saved_adapter / "README.md").read_text()

    for line in (
        "base_model: tiny-base",
        "# tiny",
        "A tiny run.",
        "| lora_rank | 4 |",
        "| ratios trained | 2x, 4x |",
        "| ae_loss | 1.25 |",
        "- corpus: 9 tokens",
    ):
        assert line in card.splitlines()
