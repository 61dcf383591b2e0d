"""The formulas against what is measured: real caches, real files, the committed benchmark."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icae.config import ModelConfig
from icae.errors import BaseModelError, ConfigError
from icae.memory import memory_bytes
from icae.serve.plan import (
    MEASURED_TFLOPS,
    ModelSizes,
    Workload,
    encode_flop,
    file_bytes,
    head_flop,
    layer_weights,
    lora_weights,
    plan,
    read_flop,
    verify_flop,
)

ROOT = Path(__file__).parents[3]
BENCH = json.loads((ROOT / "docs/results/bench/bench.json").read_text(encoding="utf-8"))
SMOLLM2 = ModelSizes(
    hidden=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_size=64,
    mlp=1536,
    mlp_matrices=3,
    vocabulary=49152,
)
SHIPPED = ModelConfig(span_length=32, lora_rank=32, objective_tokens=4, framing="around")
PARTS = {figure["name"]: figure["parts"] for figure in BENCH["figures"]}


def workload(**settings: Any) -> Workload:
    return Workload(**{"documents": 1, "tokens": 2048, "model": SHIPPED, **settings})


def measured_rate() -> float:
    """FLOP a second of the benchmark's plain prefill: what every prediction below uses."""
    rate = PARTS["encode throughput / plain prefill throughput, torch"]["prefill_tokens_per_s"]
    return float(read_flop(SMOLLM2, 0, 2048) * rate / 2048)


def test_weights_are_those_of_the_model(family: str, build_decoder: Any, build_model: Any) -> None:
    decoder = build_decoder(family)
    sizes = ModelSizes.of_config(decoder.config.to_dict())
    layers = {n: p for n, p in decoder.named_parameters() if ".layers." in n and p.ndim == 2}
    assert layer_weights(sizes) == sum(p.numel() for p in layers.values())
    if family != "gpt-neox":  # one fused projection there
        trained = build_model(family).trainable()
        own = sum(p.numel() for name, p in trained.items() if name.startswith("lora."))
        assert lora_weights(sizes, 4) == own


def test_kv_bytes_are_those_of_the_real_cache(family: str, build_decoder: Any) -> None:
    import torch

    decoder = build_decoder(family)
    cache = decoder(input_ids=torch.zeros(1, 24, dtype=torch.long), use_cache=True).past_key_values
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    sizes = ModelSizes.of_config(decoder.config.to_dict())
    assert plan(sizes, workload(tokens=24, dtype="float32")).kv_full == held


@pytest.mark.parametrize("ratio", [1.0, 2.0, 4.0, 7.5])
@pytest.mark.parametrize("verified", [0.0, 1.0])
@pytest.mark.parametrize("letters", [9, 16, 100, 1000])
def test_file_bytes_are_those_of_the_real_file(
    engine: Any, ratio: float, verified: float, letters: int
) -> None:
    text = "abcdefghij" * (letters // 10) + "x" * (letters % 10)
    made = engine.compress(text, ratio=ratio, verify=bool(verified), name="notes.txt")
    sizes = ModelSizes.of_config(engine.runtime.model.decoder.config.to_dict())
    own = workload(
        tokens=made.tokens,
        ratio=ratio,
        model=engine.config,
        dtype="float32",
        verified=verified,
        text_bytes=0.0,
    )
    real = len(memory_bytes(made.without_source()))
    assert plan(sizes, own).slots == made.slot_count
    assert file_bytes(sizes, own) == pytest.approx(real, rel=0.02, abs=64)


def test_kv_and_slots_of_512_tokens_of_smollm2_are_the_measured_ones() -> None:
    made = plan(SMOLLM2, workload(tokens=512))
    assert made.kv_full == 11_796_480  # 11.8 MB, `icae compress` prints 23,040 a position
    assert made.slots * 576 * 2 == 147_456


def test_memory_file_of_the_demo_document_has_the_planned_size() -> None:
    """677,674 and 673,778 bytes: examples/pep-0347.txt at 4x, with and without its text."""
    assert file_bytes(SMOLLM2, workload(tokens=2256)) == pytest.approx(677_674, rel=0.01)
    bare = workload(tokens=2256, text_bytes=0.0)
    assert file_bytes(SMOLLM2, bare) == pytest.approx(673_778, rel=0.001)


def test_default_throughput_is_the_measured_one() -> None:
    assert pytest.approx(measured_rate() / 1e12, rel=0.01) == MEASURED_TFLOPS


def test_encoding_speed_follows_from_the_prefill_speed() -> None:
    rate = PARTS["encode throughput / plain prefill throughput, torch"]["encode_tokens_per_s"]
    predicted = 2048 / (encode_flop(SMOLLM2, workload()) / measured_rate())
    assert predicted == pytest.approx(rate, rel=0.05)


@pytest.mark.parametrize("point", BENCH["long"]["rows"], ids=lambda row: str(row["tokens"]))
def test_long_documents_take_the_time_planned(point: dict[str, float]) -> None:
    own = workload(tokens=point["tokens"])
    seconds = encode_flop(SMOLLM2, own) / measured_rate()
    assert seconds == pytest.approx(point["seconds"], rel=0.15)


@pytest.mark.parametrize(("name", "places"), [("full_s", 2048), ("uncached_s", 512)])
def test_first_token_takes_the_time_planned(name: str, places: int) -> None:
    flop = read_flop(SMOLLM2, 0, places + 20) + head_flop(SMOLLM2, 1)
    measured = PARTS["first token, cached / full context, torch"][name]
    assert flop / measured_rate() == pytest.approx(measured, rel=0.1)


def test_break_even_is_near_the_measured_one() -> None:
    """Not nearer: behind a long context real decoding is slower than its FLOP say."""
    own = workload(verified=0.0, question_tokens=20, answer_tokens=16)
    measured = BENCH["questions"]["compressing_pays_after"]["full text, read anew"]
    assert plan(SMOLLM2, own).break_even == pytest.approx(measured, rel=0.35)


def test_measuring_fidelity_costs_what_its_places_and_its_head_say() -> None:
    own = workload(tokens=32)
    places = 4 + 8 + 4 + 31  # front, slots, objective tokens, all tokens but the last
    expected = read_flop(SMOLLM2, 0, places) + head_flop(SMOLLM2, 32)
    assert verify_flop(SMOLLM2, own) == expected
    both = plan(SMOLLM2, own).compress_flop
    assert both == expected + plan(SMOLLM2, replace(own, verified=0.0)).compress_flop


def test_reading_in_two_parts_costs_as_much_as_at_once() -> None:
    parts = read_flop(SMOLLM2, 0, 100) + read_flop(SMOLLM2, 100, 28)
    assert parts == pytest.approx(read_flop(SMOLLM2, 0, 128))


def test_without_compression_nothing_pays() -> None:
    own = workload(tokens=1, ratio=1.0, question_tokens=500)
    assert plan(SMOLLM2, own).break_even == pytest.approx(
        (plan(SMOLLM2, own).compress_flop + read_flop(SMOLLM2, 0, 1)) / read_flop(SMOLLM2, 0, 1)
    )


def test_device_hours_grow_with_documents_and_fall_with_speed() -> None:
    one = plan(SMOLLM2, workload())
    many = plan(SMOLLM2, workload(documents=1000))
    assert many.device_hours(0.5) == pytest.approx(1000 * one.device_hours(0.5))
    assert one.device_hours(1.0) == pytest.approx(one.compress_flop / 1e12 / 3600)


@pytest.mark.parametrize(
    "settings",
    [
        {"documents": 0},
        {"tokens": 0},
        {"ratio": 0.5},
        {"verified": 2.0},
        {"text_bytes": -1.0},
        {"dtype": "int8"},
    ],
)
def test_workload_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        workload(**settings)


def test_speed_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError):
        plan(SMOLLM2, workload()).device_hours(0.0)


LLAMA = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}


def test_sizes_that_a_config_leaves_out_follow_from_the_others() -> None:
    sizes = ModelSizes.of_config({k: v for k, v in LLAMA.items() if k != "num_key_value_heads"})
    assert sizes.kv_heads == 9
    assert sizes.head_size == 64


def test_text_part_counts_in_a_model_for_text_and_images() -> None:
    assert ModelSizes.of_config({"text_config": LLAMA}) == ModelSizes.of_config(LLAMA)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": None},
        {"hidden_size": "576"},
        {"vocab_size": 0},
        {"num_attention_heads": True},
        {"num_experts": 8},
        {"kv_lora_rank": 512},
    ],
)
def test_config_whose_cost_cannot_be_told_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BaseModelError):
        ModelSizes.of_config(LLAMA | change)


@pytest.mark.parametrize("content", ["[]", "{", None])
def test_file_that_is_no_config_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(BaseModelError, match=r"config\.json"):
        ModelSizes.of_file(path)


def test_sizes_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA), encoding="utf-8")
    assert ModelSizes.of_file(path).mlp == 1536
