"""The GGUF file of a base model; llama.cpp itself is not needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icae.decode.llamacpp.weights import (
    BaseFolder,
    ensure_gguf,
    gguf_path,
    write_gguf,
)
from icae.errors import BaseModelError
from icae.model.base import weight_hash

KNOWN = ("llama", "qwen2", "mistral")


@pytest.fixture
def saved(tmp_path: Path, build_decoder: Any) -> Any:
    def save(family: str = "llama", dtype: torch.dtype = torch.float32) -> tuple[Any, Path]:
        decoder = build_decoder(family).to(dtype)
        decoder.save_pretrained(tmp_path / family)
        return decoder, tmp_path / family

    return save


def change(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", KNOWN)
def test_the_hash_of_the_files_is_that_of_the_loaded_model(
    saved: Any, family: str, dtype: torch.dtype
) -> None:
    decoder, folder = saved(family, dtype)

    assert BaseFolder.open(folder).weight_hash() == weight_hash(decoder)


@pytest.mark.parametrize("family", KNOWN)
def test_the_file_holds_every_weight_once(saved: Any, family: str) -> None:
    from gguf import GGUFReader

    decoder, folder = saved(family)
    path = folder / "weights.gguf"
    write_gguf(BaseFolder.open(folder), path, "float32")

    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    total = sum(parameter.numel() for parameter in decoder.parameters())
    assert sum(int(tensor.n_elements) for tensor in found.values()) == total
    embedding = decoder.get_input_embeddings().weight.detach().numpy()
    assert np.array_equal(found["token_embd.weight"].data, embedding)
    value = decoder.model.layers[1].self_attn.v_proj.weight.detach().numpy()
    assert np.array_equal(found["blk.1.attn_v.weight"].data, value)


def test_bfloat16_is_for_matrices_only(saved: Any) -> None:
    from gguf import GGMLQuantizationType, GGUFReader

    _, folder = saved()
    path = folder / "weights.gguf"
    write_gguf(BaseFolder.open(folder), path, "bfloat16")

    for tensor in GGUFReader(path).tensors:
        matrix = len(tensor.shape) == 2
        wanted = GGMLQuantizationType.BF16 if matrix else GGMLQuantizationType.F32
        assert tensor.tensor_type == wanted


def test_llama3_rotary_factors_are_those_of_transformers(saved: Any) -> None:
    from gguf import GGUFReader
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    _, folder = saved()
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    change(folder, rope_parameters=rope)
    path = folder / "weights.gguf"
    write_gguf(BaseFolder.open(folder), path, "float32")

    config = LlamaConfig(
        hidden_size=32, num_attention_heads=4, max_position_embeddings=256, rope_parameters=rope
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 10_000.0 ** (-np.arange(0, 8, 2) / 8)
    (factors,) = (t.data for t in GGUFReader(path).tensors if t.name == "rope_freqs.weight")
    np.testing.assert_allclose(plain / factors, scaled.numpy(), rtol=1e-5)
    assert len(set(factors.tolist())) > 1


def test_the_file_is_written_once_into_the_cache(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))
    _, folder = saved()
    base = BaseFolder.open(folder)

    path = ensure_gguf(base, "a" * 64, "bfloat16")
    before = path.stat().st_mtime_ns

    assert path == gguf_path("a" * 64, base.config, "bfloat16")
    change(folder, rms_norm_eps=1e-3)
    assert path != gguf_path("a" * 64, BaseFolder.open(folder).config, "bfloat16")
    assert ensure_gguf(base, "a" * 64, "bfloat16").stat().st_mtime_ns == before
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".gguf", ".lock"]


def test_a_file_that_could_not_be_written_leaves_nothing(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))
    _, folder = saved()
    change(folder, model_type="gpt_neox")

    with pytest.raises(BaseModelError, match="a model type"):
        ensure_gguf(BaseFolder.open(folder), "a" * 64, "bfloat16")
    assert not list((tmp_path / "cache" / "gguf").glob("*.tmp"))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"model_type": "gpt_neox"}, "a model type"),
        ({"model_type": "mistral", "sliding_window": 16}, "a sliding window"),
        ({"hidden_act": "gelu"}, "an activation"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "a rotary scaling"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    saved: Any, tmp_path: Path, settings: dict[str, Any], what: str
) -> None:
    _, folder = saved()
    change(folder, **settings)

    with pytest.raises(BaseModelError, match=what) as caught:
        write_gguf(BaseFolder.open(folder), tmp_path / "weights.gguf", "float32")
    assert caught.value.fix == "Use --runtime torch."


def test_a_folder_without_sound_weights_is_refused(saved: Any, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="not a folder with a model"):
        BaseFolder.open(tmp_path)
    _, folder = saved()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BaseModelError, match="damaged"):
        BaseFolder.open(folder)
    weights.unlink()
    with pytest.raises(BaseModelError, match="no weights"):
        BaseFolder.open(folder)
