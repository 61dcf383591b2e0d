"""Adapters and memories on the Hub, tried against a stand-in for its HTTP interface."""

from __future__ import annotations

import json

import pytest
import torch
from tests.hub_stub import TOKEN, serving
from typer.testing import CliRunner

from icae.cli.app import app
from icae.errors import AdapterError, BaseModelError, InputError
from icae.model.adapter import save_adapter
from icae.model.adapter_files import adapter_folder, adapter_hash, read_info
from icae.model.base import load_decoder, load_tokenizer, weight_hash
from icae.model.base_files import tokenizer_hash
from icae.model.hub import is_hub_id, push, split_id


@pytest.fixture
def hub(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield running


@pytest.fixture
def adapter(model, tokenizer, info_for, tmp_path):
    return save_adapter(model, info_for(model, tokenizer), tmp_path / "tiny")


def test_an_adapter_goes_to_the_hub_and_comes_back_by_its_id(hub, adapter):
    result = CliRunner().invoke(app, ["push", str(adapter), "me/tiny", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["commit"].startswith(f"{hub.address}/me/tiny/commit/")
    files = hub.repositories["me/tiny"]
    assert {"icae.json", "icae.safetensors", "lora/adapter_model.safetensors"} <= files.keys()
    commit = hub.commit("me/tiny")

    for name in ("me/tiny", f"me/tiny@{commit}"):
        folder = adapter_folder(name)
        assert adapter_hash(folder) == adapter_hash(adapter)
        assert read_info(folder) == read_info(adapter)
    asked = len(hub.requests)
    adapter_folder("me/tiny")
    assert len(hub.requests) == asked  # as it was downloaded before


def test_a_memory_file_is_pushed_under_its_name(hub, build_engine, tmp_path):
    path = tmp_path / "report.icae"
    build_engine().compress("in the inn", name="report").save(path)
    result = CliRunner().invoke(app, ["push", str(path), "me/reports", "--json"])
    assert result.exit_code == 0, result.output
    assert hub.repositories["me/reports"] == {"report.icae": path.read_bytes()}


def test_what_the_hub_refuses_is_told_in_a_sentence(hub, adapter, monkeypatch):
    with pytest.raises(AdapterError, match="Cannot load the adapter me/none") as missing:
        adapter_folder("me/none")
    assert "Check the id" in str(missing.value.fix)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(InputError, match="Cannot push to me/tiny") as refused:
        push(adapter, "me/tiny")
    assert "HF_TOKEN" in str(refused.value.fix)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="Cannot push to me/tiny") as refused:
        push(adapter, "me/tiny")
    with pytest.raises(AdapterError, match="Cannot load the adapter me/tiny"):
        adapter_folder("me/tiny")
    assert "connection" in str(refused.value.fix)
    with pytest.raises(InputError, match="no repository"):
        push(adapter, "me/tiny@main")


@pytest.mark.parametrize(
    "load",
    [load_tokenizer, lambda base: load_decoder(base, dtype=torch.float32, device="cpu")],
)
def test_a_base_that_cannot_be_had_is_refused_without_trying_again(hub, monkeypatch, load):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(BaseModelError, match="Cannot load the base model me/none") as missing:
        load("me/none")
    assert "404" in str(missing.value.got)
    assert len(hub.requests) == 1
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BaseModelError, match="Cannot load the base model me/none") as refused:
        load("me/none")
    assert "connection" in str(refused.value.fix)
    assert slept == []


def test_paths_are_no_ids(tmp_path, monkeypatch):
    (tmp_path / "runs/best").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("runs/best")
    assert not is_hub_id("/abs/olute")
    assert not is_hub_id("./runs/other")
    assert is_hub_id("user/name")
    assert is_hub_id("user/name@v1.0")
    assert split_id("user/name@v1.0") == ("user/name", "v1.0")


def test_a_base_is_loaded_by_its_id_and_revision(hub, build_decoder, tokenizer, tmp_path):
    folder = tmp_path / "base"
    build_decoder("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    hub.repositories["me/base"] = {file.name: file.read_bytes() for file in folder.iterdir()}
    name = f"me/base@{hub.commit('me/base')}"

    loaded = load_decoder(name, dtype=torch.float32, device="cpu")

    assert weight_hash(loaded) == weight_hash(
        load_decoder(str(folder), dtype=torch.float32, device="cpu")
    )
    assert tokenizer_hash(load_tokenizer(name)) == tokenizer_hash(load_tokenizer(str(folder)))
