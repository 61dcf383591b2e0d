"""Spans whose memory tokens attend to the slots of spans before them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from icae.compression.adaptive import FidelityPolicy
from icae.config import ModelConfig
from icae.errors import ConfigError, InputError
from icae.evals.decoding import encode_contexts
from icae.model.key_values import layers_of_pairs
from icae.model.objectives import Sample, autoencoding
from mixed_prefix import KEY_VALUES

TEXT = "The inner thing is in the thin tin: a thief ran there, and the end is near.\n"


@pytest.fixture
def build(build_model):
    return lambda spans: build_model("llama", previous_spans=spans, **KEY_VALUES)


def test_memory_tokens_attend_to_slots_left_of_their_span(build, random_ids):
    model, ids = build(1), random_ids(28)  # a span of 16 tokens and one of 12
    with torch.no_grad():
        (memory,) = model.encode([ids], [4.0])
        past = DynamicCache()
        own = torch.from_numpy(ids[16:])
        model.decoder.base_model(
            input_ids=own[None],
            attention_mask=torch.ones(1, 12, dtype=torch.long),
            past_key_values=past,
            use_cache=True,
        )
        left = torch.tensor([-15, -11, -7, -3])
        layers = [
            (
                torch.cat([turn(keys[:, :, :4], left), seen_keys], dim=2),
                torch.cat([values[:, :, :4], seen_values], dim=2),
            )
            for turn, (keys, values), (seen_keys, seen_values, *_) in zip(
                model.turns, memory.key_values, past, strict=True
            )
        ]
        past = DynamicCache(layers)
        embeds = model.decoder.get_input_embeddings()(own)
        model.adapted.base_model(
            inputs_embeds=(model.tokens.memory_ND[:1] + embeds.view(3, 4, -1).mean(dim=1))[None],
            attention_mask=torch.ones(1, 4 + 12 + 3, dtype=torch.long),
            position_ids=torch.tensor([[1, 5, 9]]),
            past_key_values=past,
            use_cache=True,
        )
    for turn, (keys, values), (wanted_k, wanted_v, *_) in zip(
        model.turns, memory.key_values, past, strict=True
    ):
        placed = turn(keys[:, :, 4:], torch.tensor([1, 5, 9]))
        torch.testing.assert_close(placed, wanted_k[:, :, 16:], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(values[:, :, 4:], wanted_v[:, :, 16:], atol=1e-5, rtol=1e-5)


def _seen_by_the_last(model: Any, ids: Any) -> list[bool]:
    """Which of the spans of 16 tokens change the last one's slots."""

    def last(changed: Any) -> Any:
        with torch.no_grad():
            (memory,) = model.encode([changed], [4.0])
        return memory.key_values[-1][1][:, :, -4:]

    before = last(ids)
    found = []
    for start in range(0, len(ids) - 16, 16):
        other = ids.copy()
        other[start : start + 16] = ids[start : start + 16][::-1]
        found.append(not torch.equal(before, last(other)))
    return found


def test_a_span_sees_so_many_before_it(build, random_ids):
    # What those saw would reach it in a third layer.
    ids = random_ids(64)
    assert _seen_by_the_last(build(0), ids) == [False, False, False]
    assert _seen_by_the_last(build(1), ids) == [False, False, True]
    assert _seen_by_the_last(build(2), ids) == [False, True, True]


def test_contexts_that_are_encoded_together_get_what_they_get_alone(build, random_ids):
    model, contexts = build(2), [random_ids(n, n) for n in (50, 20, 40)]
    with torch.no_grad():
        together = model.encode(contexts, [4.0, 2.0, 3.0])
        for ids, ratio, memory in zip(contexts, [4.0, 2.0, 3.0], together, strict=True):
            (alone,) = model.encode([ids], [ratio])
            for own, wanted in zip(memory.key_values, alone.key_values, strict=True):
                torch.testing.assert_close(own, wanted, atol=1e-5, rtol=1e-5)


def test_it_is_trained_like_any_other(build, random_ids, train):
    ids = random_ids(40)
    sample = Sample(context_ids=ids, ratio=2.0, tasks=(autoencoding(ids),))
    losses = train(build(1), [sample])
    assert losses[-1] < losses[0]


def test_an_engine_compresses_whole_texts_and_refuses_what_rests_on_spans_alone(build_engine):
    engine = build_engine(previous_spans=1, **KEY_VALUES)
    texts = [TEXT, TEXT[10:]]
    made = engine.compress_many(texts, ratio=4.0)
    ids = [engine.compressor.tokenize(text).ids for text in texts]
    for memory, own, held in zip(
        made, ids, encode_contexts(engine.runtime, ids, ratio=4.0), strict=True
    ):
        assert len(memory.spans) > 2
        with torch.no_grad():
            (wanted,) = engine.runtime.model.encode([own], [4.0])
        for spans in (memory.spans, held.parts):
            pairs = torch.cat([torch.from_numpy(_pairs(span)) for span in spans])
            for got, layer in zip(layers_of_pairs(pairs), wanted.key_values, strict=True):
                torch.testing.assert_close(got, layer, atol=0.05, rtol=0.02)
    joint = made[0] + made[1]  # documents stand alone
    assert engine.ask(joint, "Who?", max_new_tokens=2).answer_tokens <= 2

    with pytest.raises(InputError, match="Changing a part of a text needs spans that stand alone"):
        engine.append(made[0], "More.")
    with pytest.raises(InputError, match="A ratio for each span needs spans that stand alone"):
        engine.compress(TEXT, policy=FidelityPolicy(budget=40))


def _pairs(span: Any) -> Any:
    payload = getattr(span, "payload", span)
    return payload.pairs_KY2HW.copy()


def test_slots_as_embeddings_cannot_see_those_before_them():
    with pytest.raises(ConfigError, match=r"model\.previous_spans cannot be had") as caught:
        ModelConfig(previous_spans=2)
    assert "key-values" in str(caught.value)
