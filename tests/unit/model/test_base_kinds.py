"""What a base does between token ids and logits is its own; kinds without a memory are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.bases.architectures import tiny, tiny_config

from icae.errors import BaseModelError
from icae.model.around import input_table
from icae.model.base import load_decoder, load_tokenizer
from icae.model.decoder import DecoderRow, plain_logits
from icae.model.rotary import steady_positions


def loaded(model: Any, folder: Path) -> Any:
    model.save_pretrained(folder)
    return load_decoder(str(folder), dtype=torch.float32, device="cpu")


def refused(folder: Path) -> BaseModelError:
    with pytest.raises(BaseModelError) as caught:
        load_decoder(str(folder), dtype=torch.float32, device="cpu")
    return caught.value


@pytest.mark.parametrize("name", ["Gemma2", "Granite", "Cohere2", "FalconH1", "HyperCLOVAX"])
def test_logits_are_the_models_own_scaled_and_capped(name):
    decoder = tiny(name)
    ids = np.arange(40, 60)
    with torch.no_grad():
        own = decoder(torch.from_numpy(ids)[None]).logits[0, :-1]
        (ours,) = plain_logits(decoder, [DecoderRow.plain(ids, scored=19)])
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-5)


def test_input_embeddings_are_what_the_first_layer_receives():
    decoder = tiny("Gemma2")
    weight = decoder.get_input_embeddings().weight
    scale = decoder.config.hidden_size**0.5
    torch.testing.assert_close(input_table(decoder), weight * scale)


def test_a_base_that_cannot_use_fused_attention_gets_the_other(tmp_path):
    assert loaded(tiny("Gemma2"), tmp_path / "g").config._attn_implementation == "eager"
    assert loaded(tiny("Llama"), tmp_path / "l").config._attn_implementation == "sdpa"


def test_dropout_of_a_base_is_off_also_where_layers_train(build_model, random_ids):
    decoder = tiny("StableLm", attention_dropout=0.5, hidden_dropout=0.5)
    model = build_model(decoder=decoder).train()
    rows = [DecoderRow.plain(random_ids(12), scored=8)]
    first, second = (plain_logits(model.adapted, rows)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_frequencies_that_change_with_length_bound_the_positions():
    assert steady_positions(tiny_config("Phi3")) == 64
    assert steady_positions(tiny_config("Llama")) == 512


def test_the_text_part_of_a_model_for_images_is_the_base(tmp_path):
    text = tiny_config("Gemma3Text").to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision)
    whole = transformers.Gemma3ForConditionalGeneration(config).eval()
    part = loaded(whole, tmp_path / "base")
    assert type(part) is transformers.Gemma3ForCausalLM
    assert not any("vision" in name for name, _ in part.named_parameters())
    ids = torch.arange(50, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(part(ids).logits, whole(ids).logits)


def test_weights_that_are_missing_or_left_over_are_refused(tmp_path):
    tiny("Llama").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    part = {k: v for k, v in whole.items() if "layers.1.mlp.up" not in k}
    save_file(part, file, metadata={"format": "pt"})
    assert "1 missing: model.layers.1.mlp.up_proj.weight" in str(refused(tmp_path).got)
    save_file(whole | {"extra": torch.zeros(2)}, file, metadata={"format": "pt"})
    assert "1 unexpected: extra" in str(refused(tmp_path).got)


def test_a_folder_of_peft_is_refused_with_the_base_it_names(tmp_path):
    record = {"base_model_name_or_path": "some/base", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(record))
    error = refused(tmp_path)
    assert "adapter of PEFT" in error.message
    assert "some/base" in str(error.fix)


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("Bloom", "positions that cannot be given"),
        ("Mpt", "positions that cannot be given"),
        ("Mamba", "recurrent"),
        ("Rwkv", "recurrent"),
        ("OPT", "projected to the hidden size"),
    ],
)
def test_kinds_without_a_memory_are_refused_in_a_sentence(tmp_path, name, got):
    tiny(name).save_pretrained(tmp_path)
    error = refused(tmp_path)
    assert "No memory can be made" in error.message
    assert got in str(error.got)
    assert error.fix


def test_quantised_and_two_sided_models_are_refused_before_weights_are_read(tmp_path):
    for method in ("gptq", "awq", "fp8", "mxfp4"):
        config = tiny_config("Llama").to_dict() | {"quantization_config": {"quant_method": method}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        error = refused(tmp_path)
        assert f"quantised by {method}" in str(error.got)
        assert "bfloat16" in str(error.fix)
    transformers.BartConfig(d_model=16).save_pretrained(tmp_path)
    assert "an encoder and a decoder" in str(refused(tmp_path).got)


def test_bitsandbytes_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("icae.model.base.find_spec", lambda name: None)
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    config = tiny_config("Llama").to_dict() | {"quantization_config": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "pip install bitsandbytes" in str(refused(tmp_path).fix)


def test_code_beside_the_weights_never_runs_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    auto["AutoTokenizer"] = ["own.Slow", "own.Fast"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto}))
    error = refused(tmp_path)
    assert error.got == "code of its own"
    assert "--trust-remote-code" in str(error.fix)
    with pytest.raises(BaseModelError, match="Cannot load"):
        load_tokenizer(str(tmp_path))
    assert not ran.exists()


def test_a_folder_with_a_sentencepiece_file_alone_is_refused(tmp_path):
    tiny("Llama").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00")
    with pytest.raises(BaseModelError) as caught:
        load_tokenizer(str(tmp_path))
    assert caught.value.fix
