"""What holds of every form of memory and every rival that has one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from icae.model.base import weight_hash
from icae.model.objectives import Sample, autoencoding, continuation, instruction, recall

KEY_VALUES = {"memory": "key-values", "lora_targets": "all-linear"}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "default": ("memory", {"layout": "default"}),
    "uniform-encoder": ("memory", {}),
    "uniform": ("memory", {"layout": "uniform", "framing": "around"}),
    "key-values": ("memory", {**KEY_VALUES, "framing": "between"}),
    "gist": ("gist", {}),
    "autocompressor": ("autocompressor", {}),
}


@pytest.fixture
def build(build_model):
    """``build(kind, family)``: a tiny model, as if trained."""

    def make(kind, family="llama"):
        method, settings = KINDS[kind]
        return build_model(family, method=method, objective_tokens=2, **settings)

    return make


@pytest.fixture
def samples(random_ids):
    """Contexts of one token to several spans, with every objective."""
    return [
        Sample(
            context_ids=random_ids(length, seed),
            ratio=ratio,
            tasks=(
                autoencoding(random_ids(length, seed)),
                recall(random_ids(7, seed), given=3),
                continuation(random_ids(3 + seed, 9)),
                instruction(random_ids(4, 5), random_ids(3, 6)),
            ),
        )
        for seed, (length, ratio) in enumerate([(16, 4.0), (5, 1.0), (37, 2.0), (1, 8.0)])
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_batch_size_change_no_score(build, samples, kind):
    model = build(kind)
    with torch.no_grad():
        together = model(samples)
        alone = [score for sample in samples for score in model([sample])]
    assert [s.objective for s in together] == ["ae", "recall", "lm", "ft"] * 4
    assert [s.labels for s in together[::4]] == [16, 5, 37, 1]
    assert [s.labels for s in together[2::4]] == [3, 4, 5, 6]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.log_probs_T, other.log_probs_T, atol=5e-5, rtol=1e-4)
        torch.testing.assert_close(one.loss_sum, other.loss_sum, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_decoder_reads_of_a_context_is_its_memory_alone(build, random_ids, kind):
    model, one, task = build(kind), random_ids(12), continuation(random_ids(6, 2))
    other = one.copy()
    other[2] = (other[2] + 7) % 256
    with torch.no_grad():
        first, second = model.encode([one, other], [4.0, 4.0])
        (logits,) = model.label_logits([first], [task])
        (changed,) = model.label_logits([second], [task])
        part = "slots_KD" if hasattr(first, "slots_KD") else "key_values"
        swapped = replace(second, **{part: getattr(first, part)})
        (same,) = model.label_logits([swapped], [task])
    assert (logits - changed).abs().max() > 1e-3  # the memory carries the change ...
    assert torch.equal(logits, same)  # ... and nothing else does


@pytest.mark.parametrize("family", ["llama", "gpt-neox"])
@pytest.mark.parametrize("kind", ["key-values", "gist", "autocompressor"])
def test_the_decoder_stays_frozen_and_every_trained_part_learns(
    build, samples, train, kind, family
):
    model = build(kind, family)
    before = weight_hash(model.decoder)
    losses = train(model, samples[::2], steps=5)
    assert losses[-1] < losses[0]
    assert weight_hash(model.decoder) == before
    assert all(p.grad is None for p in model.decoder.parameters())
    idle = [n for n, p in model.trainable().items() if p.grad is None or not p.grad.any()]
    # A memory of keys and values reads nothing else of the last layer.
    assert all("layers.1." in name for name in idle)
    assert not any(f"{part}." in n for n in idle for part in ("k_proj", "v_proj", "key_value"))
    assert bool(idle) == (kind != "autocompressor" and (family, kind) != ("gpt-neox", "gist"))
