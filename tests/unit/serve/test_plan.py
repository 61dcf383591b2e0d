"""The formulas against what is measured: real caches, real files, points of the benchmark."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.bases.architectures import tiny, tiny_config
from transformers import AutoConfig

from icae.config import ModelConfig
from icae.errors import BaseModelError, ConfigError
from icae.memory import memory_bytes
from icae.model.around import layers_of
from icae.model.cache_size import CacheSize
from icae.model.sizes import ModelSizes
from icae.serve.plan import (
    MEASURED_TFLOPS,
    Workload,
    encode_flop,
    file_bytes,
    head_flop,
    lora_weights,
    plan,
    read_flop,
    verify_flop,
)

CONFIG = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}


def sizes_of(config: Any) -> ModelSizes:
    return ModelSizes.of_config(config, dtype=torch.float32)


SMOLLM2 = ModelSizes.of_config(AutoConfig.for_model(**CONFIG), dtype=torch.bfloat16)
SHIPPED = ModelConfig(span_length=32, lora_rank=32, objective_tokens=4, framing="around")

KEY_VALUES = ModelConfig(
    memory="key-values",
    span_length=128,
    lora_rank=16,
    lora_targets="all-linear",
    objective_tokens=4,
    framing="between",
)

# Measured with SmolLM2-135M-Instruct in bfloat16 on two threads of an AMD EPYC (benchmarks/).
READ_PER_S = 776.486  # tokens of 2,048 that are read
ENCODED_PER_S = 808.388
RATE = read_flop(SMOLLM2, 0, 2048) * READ_PER_S / 2048  # FLOP a second
TIMES = {12_500: 13.486, 25_000: 28.049, 50_000: 56.422, 100_000: 114.405}  # tokens: s
FIRST_TOKEN = {2048: 2.79793, 512: 0.527424}  # positions read: s
PAYS_AFTER = 0.91256  # questions of 20 tokens, answers of 16


def workload(**settings: Any) -> Workload:
    return Workload(**{"tokens": 2048, "model": SHIPPED, **settings})


def test_weights_are_those_of_the_model(family: str, build_decoder: Any, build_model: Any) -> None:
    decoder = build_decoder(family)
    sizes = sizes_of(decoder.config)
    layers = {n: p for n, p in decoder.named_parameters() if ".layers." in n and p.ndim == 2}
    assert sizes.weights == sum(p.numel() for p in layers.values())
    if family != "gpt-neox":  # one fused projection there
        for targets in ("qv", "all-linear"):
            model = build_model(family, lora_targets=targets)
            trained = model.trainable().items()
            own = sum(p.numel() for name, p in trained if name.startswith("lora."))
            assert lora_weights(sizes, model.config) == own


def test_kv_bytes_are_those_of_the_real_cache(family: str, build_decoder: Any) -> None:
    decoder = build_decoder(family)
    cache = decoder(input_ids=torch.zeros(1, 24, dtype=torch.long), use_cache=True).past_key_values
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    sizes = sizes_of(decoder.config)
    assert plan(sizes, workload(tokens=24, dtype="float32")).kv_bytes.full == held


@pytest.mark.parametrize("ratio", [1.0, 4.0, 7.5])
@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("letters", [9, 16, 100, 1000])
def test_file_bytes_are_those_of_the_real_file(
    engine: Any, ratio: float, verified: bool, letters: int
) -> None:
    text = "abcdefghij" * (letters // 10) + "x" * (letters % 10)
    made = engine.compress(text, ratio=ratio, verify=verified, name="notes.txt")
    sizes = sizes_of(engine.runtime.model.decoder.config)
    own = workload(tokens=made.tokens, ratio=ratio, model=engine.config, dtype="float32")
    own = replace(own, verified=verified, text_bytes=0.0)
    real = len(memory_bytes(made.without_source()))
    assert plan(sizes, own).slots == made.slot_count
    assert file_bytes(sizes, own) == pytest.approx(real, rel=0.02, abs=64)


@pytest.mark.parametrize("ratio", [1.0, 4.0])
@pytest.mark.parametrize("letters", [9, 100, 1000])
def test_file_bytes_of_key_values_are_those_of_the_real_file(
    build_engine: Any, ratio: float, letters: int
) -> None:
    engine = build_engine(memory="key-values", framing="between", lora_targets="all-linear")
    made = engine.compress("abcdefghij" * (letters // 10) + "x" * (letters % 10), ratio=ratio)
    sizes = sizes_of(engine.runtime.model.decoder.config)
    own = workload(tokens=made.tokens, ratio=ratio, model=engine.config, text_bytes=0.0)
    real = len(memory_bytes(made.without_source()))
    assert file_bytes(sizes, own) == pytest.approx(real, rel=0.02, abs=64)


def test_key_values_need_no_reading_and_lora_for_memory_tokens_alone() -> None:
    own = workload(tokens=128, model=KEY_VALUES)
    lora = 2.0 * lora_weights(SMOLLM2, KEY_VALUES)
    assert encode_flop(SMOLLM2, own) == read_flop(SMOLLM2, 0, 160) + lora * 32
    # 4 objective tokens and 32 slots are there; 4 more, all tokens but the last are read, and
    # for recall 4 more, about 6 that are given, and 16 but the last
    held = read_flop(SMOLLM2, 36, 131) + head_flop(SMOLLM2, 128)
    found = read_flop(SMOLLM2, 36, 25) + head_flop(SMOLLM2, 16)
    assert verify_flop(SMOLLM2, own) == held + found
    made = plan(SMOLLM2, own)
    question = made.question_tflop
    saved = question.full - question.slots
    assert made.break_even_questions == pytest.approx(made.compress_tflop / saved)
    none, bare = replace(own, ratio=8.0, text_bytes=0.0), replace(own, text_bytes=0.0)
    difference = file_bytes(SMOLLM2, bare) - file_bytes(SMOLLM2, none)
    assert difference == pytest.approx(16 * 30 * 2 * 3 * 64 * 2, abs=64)  # bfloat16


def test_cache_slots_and_file_of_smollm2_are_the_measured_ones() -> None:
    made = plan(SMOLLM2, workload(tokens=512))
    assert made.kv_bytes.full == 11_796_480
    assert made.slots * 576 * 2 == 147_456
    # examples/pep-0347.txt at 4x, with and without its text
    assert file_bytes(SMOLLM2, workload(tokens=2256)) == pytest.approx(684_514, rel=0.01)
    bare = workload(tokens=2256, text_bytes=0.0)
    assert file_bytes(SMOLLM2, bare) == pytest.approx(680_618, rel=0.001)
    in_pairs = replace(bare, model=KEY_VALUES)
    assert file_bytes(SMOLLM2, in_pairs) == pytest.approx(13_005_362, rel=0.001)


def test_times_follow_from_the_time_of_a_prefill() -> None:
    assert pytest.approx(MEASURED_TFLOPS, rel=0.01) == RATE / 1e12
    encoded = 2048 / (encode_flop(SMOLLM2, workload()) / RATE)
    assert encoded == pytest.approx(ENCODED_PER_S, rel=0.05)
    for tokens, seconds in TIMES.items():
        planned = encode_flop(SMOLLM2, workload(tokens=tokens)) / RATE
        assert planned == pytest.approx(seconds, rel=0.15)
    for places, seconds in FIRST_TOKEN.items():
        planned = (read_flop(SMOLLM2, 0, places + 20) + head_flop(SMOLLM2, 1)) / RATE
        assert planned == pytest.approx(seconds, rel=0.1)


def test_break_even_is_near_the_measured_one() -> None:
    """Not nearer: behind a long context real decoding is slower than its FLOP say."""
    own = workload(verified=False, question_tokens=20, answer_tokens=16)
    assert plan(SMOLLM2, own).break_even_questions == pytest.approx(PAYS_AFTER, rel=0.35)


def test_measuring_fidelity_costs_what_its_places_and_its_head_say() -> None:
    own = workload(tokens=32)
    places = 4 + 8 + 4 + 31  # front, slots, objective tokens, all tokens but the last
    expected = read_flop(SMOLLM2, 0, places) + head_flop(SMOLLM2, 32)
    assert verify_flop(SMOLLM2, own) == expected
    both, one = (plan(SMOLLM2, replace(own, verified=v)).compress_tflop for v in (True, False))
    assert both - one == pytest.approx(expected / 1e12)


def test_without_compression_only_the_text_read_anew_is_saved() -> None:
    made = plan(SMOLLM2, workload(tokens=1, ratio=1.0, question_tokens=500))
    one = read_flop(SMOLLM2, 0, 1) / 1e12
    assert made.break_even_questions == pytest.approx((made.compress_tflop + one) / one)


def test_a_ratio_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError):
        workload(ratio=0.5)


def test_sizes_are_read_from_a_file_and_its_text_part(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": CONFIG}), encoding="utf-8")
    assert ModelSizes.of_file(path) == SMOLLM2
    assert SMOLLM2.lora_ends["qv"] == 30 * (576 + 576 + 576 + 192)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"model_type": "unheard"}, "sizes of a causal LM"),
        ({"model_type": None}, "sizes of a causal LM"),
        ({"hidden_size": "576"}, "sizes of a causal LM"),
        ("[]", r"config\.json"),
        ("{", r"config\.json"),
        (None, r"config\.json"),
    ],
)
def test_file_whose_cost_cannot_be_told_is_refused(tmp_path: Path, content: Any, told: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(CONFIG | content)
        path.write_text(text, encoding="utf-8")
    with pytest.raises(BaseModelError, match=told):
        ModelSizes.of_file(path)


@pytest.mark.parametrize(
    "name", ["Mistral", "DeepseekV3", "FalconH1", "Lfm2", "GptOss", "Qwen3Moe"]
)
def test_sizes_without_weights_are_those_of_the_model_of_any_kind(name: str) -> None:
    model = tiny(name)
    sizes = sizes_of(tiny_config(name))
    assert sizes.cache == CacheSize.of(model)
    matrices = sum(p.numel() for part in layers_of(model) for p in part.parameters() if p.ndim >= 2)
    assert sizes.weights < matrices if name in ("GptOss", "Qwen3Moe") else sizes.weights == matrices
    made = plan(sizes, workload(tokens=400, model=ModelConfig()))
    assert 0 < made.kv_bytes.slots < made.kv_bytes.full
    if name in ("DeepseekV3", "FalconH1", "Lfm2"):
        with pytest.raises(BaseModelError, match="embeddings"):
            plan(sizes, workload(model=KEY_VALUES))
