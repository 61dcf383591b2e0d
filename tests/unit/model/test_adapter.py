"""Folders of trained models: adapters, full-context readers and rivals, in one form."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

from icae.config.types import Method
from icae.errors import AdapterError
from icae.model.adapter import load_trained, load_weights, model_class, save_adapter
from icae.model.adapter_files import ADAPTERS, FULL_CONTEXT, KINDS, RIVAL, adapter_hash, read_info
from icae.model.adapter_vectors import objective_vectors
from icae.model.base import weight_hash
from icae.model.card import model_card
from icae.model.icae import IcaeModel
from icae.model.objectives import Sample, instruction

METHODS = sorted(get_args(Method))


@pytest.fixture
def decoder(build_decoder):
    return build_decoder()


@pytest.fixture
def saved(decoder, build_model, info_for, tokenizer, tmp_path):
    """``saved(method)``: a model as if trained, and its folder."""

    def build(method):
        model = build_model(decoder=decoder, method=method)
        info = info_for(model, tokenizer)
        info = replace(info, method=method, base_hash=weight_hash(decoder))
        return model, save_adapter(model, info, tmp_path / method)

    return build


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_model_gives_the_same_losses(saved, decoder, random_ids, method):
    model, folder = saved(method)
    info = read_info(folder, KINDS[method])
    base = {"base_model": "x", "base_hash": weight_hash(decoder)}
    loaded = load_trained(model_class(info.model, method), info, folder, decoder, **base)
    assert info.method == method
    assert not loaded.training
    context, prompt = random_ids(24), random_ids(4)
    task = instruction(prompt, random_ids(3), full_prompt_ids=np.concatenate([context, prompt]))
    sample = Sample(context_ids=context, ratio=4.0, tasks=(task,))
    with torch.no_grad():
        assert torch.equal(loaded([sample])[0].loss_sum, model.eval()([sample])[0].loss_sum)


@pytest.mark.parametrize("method", METHODS)
def test_its_lora_is_a_standard_peft_folder_beside_a_card(saved, method):
    _, folder = saved(method)
    assert LoraConfig.from_pretrained(str(folder / KINDS[method].lora)).r == 4
    card = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    for line in ("# tiny", "| lora_rank | 4 |", "| ae_loss | 1.25 |", "- corpus: 9 tokens"):
        assert line in card
    assert ("| ratios trained | 2x, 4x |" in card) == (method != "full-context")
    assert ("## Limits" in card) == (method == "memory")


@pytest.mark.parametrize("method", METHODS)
def test_each_kind_of_folder_is_refused_where_another_is_wanted(saved, method):
    _, folder = saved(method)
    for kind in {id(k): k for k in KINDS.values()}.values():
        if method in kind.methods:
            continue
        with pytest.raises(AdapterError, match=f"is not {kind.what}") as caught:
            read_info(folder, kind)
        assert KINDS[method].use in str(caught.value.fix)
        assert kind.record in str(caught.value.expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is not the record"),
        ({"version": 2}, "another format version"),
        ({"surprise": 1}, "unknown key"),
        ({"base_hash": 7}, "base_hash"),
        ({"model": 3}, "a key is missing"),
        ({"model": {"layout": "spiral"}}, "model: layout"),
        ({"method": "other"}, "method"),
        ({"metrics": {"ae_loss": "low"}}, "metrics"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(saved, method, change, message):
    _, folder = saved(method)
    edit(folder / KINDS[method].record, **change)
    with pytest.raises(AdapterError, match=message):
        read_info(folder, KINDS[method])


@pytest.mark.parametrize("text", ["{", "[]", "", '"icae-adapter"', None])
def test_a_damaged_or_missing_record_is_refused(saved, text):
    _, folder = saved("gist")
    record = folder / "rival.json"
    record.unlink() if text is None else record.write_text(text)
    with pytest.raises(AdapterError) as caught:
        read_info(folder, RIVAL)
    if text is None:
        assert "rival.json" in str(caught.value.expected)
        assert "objective.reader: gist" in str(caught.value.fix)


@pytest.mark.parametrize("method", METHODS)
def test_damaged_weights_are_refused_and_have_another_hash(saved, method):
    model, folder = saved(method)
    kind = KINDS[method]
    for part in kind.weights:
        digest = adapter_hash(folder, kind)
        (folder / part).write_bytes((folder / part).read_bytes()[:-10])
        assert adapter_hash(folder, kind) != digest
        with pytest.raises(AdapterError, match="damaged"):
            load_weights(model, folder, method=method)
        (folder / part).unlink()
        with pytest.raises(AdapterError, match="damaged"):
            load_weights(model, folder, method=method)
        with pytest.raises(AdapterError, match="damaged"):
            adapter_hash(folder, kind)
        saved(method)


@pytest.mark.parametrize("head", ["plain", "residual"])
@pytest.mark.parametrize("embedding", ["shared", "per-slot"])
def test_a_saved_adapter_gives_identical_slots_and_objective_tokens(
    build_model, decoder, tokenizer, info_for, random_ids, tmp_path, head, embedding
):
    model = build_model(slot_head=head, memory_embedding=embedding)
    model.calibrate([random_ids(16, seed) for seed in range(4)], [8] * 4)
    info = info_for(model, tokenizer)
    folder = save_adapter(model, info, tmp_path / "a" / "b")
    read, base = read_info(folder), {"base_model": "other", "base_hash": weight_hash(decoder)}
    loaded = load_trained(IcaeModel, read, folder, decoder, **base)

    assert read == info
    with torch.no_grad():
        slots, expected = (m.encode_spans([random_ids(16)], [4])[0] for m in (loaded, model))
    assert torch.equal(slots, expected)
    bare = model_card(replace(read, metrics={}, data={}))
    assert "Nothing was measured." in bare
    assert "Not recorded." in bare
    assert "language:" not in bare
    assert "datasets:" not in bare
    assert "\nlanguage: ko\n" in model_card(replace(read, data={"language": "ko"}))
    named = model_card(replace(read, data={"datasets": "a/b, c/d"}))
    assert "\ndatasets:\n- a/b\n- c/d\n" in named
    with pytest.raises(AdapterError, match="another base model") as caught:
        load_trained(IcaeModel, read, folder, decoder, **{**base, "base_hash": "b" * 64})
    assert "other" in str(caught.value)
    assert "tiny-base" in str(caught.value)
    stored = objective_vectors(folder, model.config)
    for name in ("ae", "lm", "ft"):
        assert torch.equal(loaded.tokens.objective(name), model.tokens.objective(name))
        assert stored[name].tolist() == model.tokens.objective(name).tolist()


def test_the_lora_names_its_base_by_id_and_files_follow_the_umask(
    model, tokenizer, info_for, tmp_path
):
    info = replace(info_for(model, tokenizer), base_model="smollm2-135m-instruct")
    before = os.umask(0o027)
    folder = save_adapter(model, info, tmp_path / "made")
    os.umask(before)
    settings = json.loads((folder / "lora/adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert settings["target_modules"] == sorted(settings["target_modules"])
    card = (folder / "README.md").read_text()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct\n" in card
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o640}


def test_the_lora_folder_loads_through_plain_peft(saved_adapter, model, build_decoder, random_ids):
    plain = PeftModel.from_pretrained(build_decoder(), str(saved_adapter / "lora")).eval()

    ids = torch.as_tensor(random_ids(12))[None]
    with torch.no_grad():
        expected = model.lora(input_ids=ids).logits
        base = model.decoder(input_ids=ids).logits
        assert torch.equal(plain(input_ids=ids).logits, expected)
    assert not torch.allclose(expected, base, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tokens.memory_ND", {}),
        ("tokens.surprise", {}),
        (None, {"lora_rank": 2}),
        (None, {"slot_head": "plain"}),
        (None, {"memory_embedding": "per-slot"}),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_leave_the_model_as_it_was(
    saved_adapter, build_model, name, settings
):
    path, model = saved_adapter / "icae.safetensors", build_model(**settings)
    if name is not None:
        save_file({**load_file(path), name: torch.zeros(7)}, path)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(AdapterError, match="do not fit"):
        load_weights(model, saved_adapter)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_hash_changes_with_the_weights_and_the_architecture(
    saved_adapter, model, tokenizer, info_for, tmp_path
):
    first = adapter_hash(saved_adapter)
    copied = Path(shutil.copytree(saved_adapter, tmp_path / "moved"))
    assert adapter_hash(copied) == first
    edit(copied / "icae.json", name="renamed", commit="abc")
    assert adapter_hash(copied) == first

    record = json.loads((copied / "icae.json").read_text())
    edit(copied / "icae.json", model={**record["model"], "layout": "uniform"})
    hashes = {first, adapter_hash(copied)}
    for name in ("tokens.objective_ND", "lora.base_model.model.model.layers.0.self_attn.q_proj"):
        with torch.no_grad():
            next(p for n, p in model.trainable().items() if n.startswith(name)).add_(0.01)
        hashes.add(adapter_hash(save_adapter(model, info_for(model, tokenizer), copied)))

    assert len(hashes) == 4


def test_records_of_removed_settings_are_read_where_they_change_nothing(saved_adapter):
    path, model = saved_adapter / "icae.json", json.loads((saved_adapter / "icae.json").read_text())
    neutral = {"reading": "memory-tokens", "residual_decay": 1.0, "residual_scale": 0.1}
    written = read_info(saved_adapter).model
    edit(path, model={**model["model"], **neutral})
    assert read_info(saved_adapter).model == written

    for change in ({"reading": "mean-pool"}, {"residual_decay": 0.5}, {"slot_head": "linear"}):
        edit(path, model={**model["model"], **change})
        with pytest.raises(AdapterError, match="no more") as caught:
            read_info(saved_adapter)
        assert "0031da2" in str(caught.value.fix)


def test_the_adapter_of_release_0_1_0_and_its_hash_are_what_they_were():
    folder = ADAPTERS / "smollm2-135m"
    info = read_info(folder)
    assert (info.name, info.model.objective_tokens) == ("smollm2-135m-cpu32", 4)
    assert adapter_hash(folder)[:16] == "848233a8d7ea0230"


def test_a_full_context_reader_of_the_first_form_is_read(saved):
    _, folder = saved("full-context")
    record = json.loads((folder / "reader.json").read_text())
    model = record.pop("model")
    del record["ratios"]
    old = {**record, **{k: v for k, v in model.items() if k.startswith("lora_")}}
    (folder / "reader.json").write_text(json.dumps(old))

    info = read_info(folder, FULL_CONTEXT)

    assert (info.method, info.model.lora_rank, info.model.lora_alpha) == ("full-context", 4, 8.0)
    assert len(adapter_hash(folder, FULL_CONTEXT)) == 64
