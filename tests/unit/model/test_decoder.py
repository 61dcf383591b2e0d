"""Rows of the frozen decoder: which share a pass, and what they are read behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.bases.architectures import tiny

from icae.errors import InputError
from icae.model.around import embed, layers_of
from icae.model.decoder import (
    PASS_TOKENS,
    DecoderRow,
    begun_rows,
    label_logits,
    logits_beside,
    places_of,
    plain_logits,
    read,
    row_groups,
    scored_states,
)
from icae.model.icae import Slots
from icae.model.objectives import autoencoding


def test_logits_and_gradients_do_not_depend_on_the_grouping(build_model, random_ids, monkeypatch):
    model = build_model(objective_tokens=2, framing="around")
    tasks = [autoencoding(random_ids(n)) for n in (40, 4, 38, 5)]
    found = []
    for cost, passes in ((0, 4), (20, 2), (10_000, 1)):
        monkeypatch.setitem(PASS_TOKENS, "cpu", cost)
        sizes = [len(task.target_ids) + 9 for task in tasks]
        assert len(row_groups(sizes, pass_tokens=cost)) == passes
        memories = [
            Slots(slots_KD=own, spans=[(8, 4)])
            for own in model.encode_spans([random_ids(8)] * 4, [4] * 4)
        ]
        logits = model.label_logits(memories, tasks)
        loss = torch.cat(logits).square().mean()
        trained = list(model.trainable().values())
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        found.append([*logits, *(g for g in gradients if g is not None)])
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_embeddings_or_keys_and_values_in_front_are_read_like_the_ids_themselves(
    build_decoder, random_ids
):
    decoder, ids = build_decoder(), random_ids(9)
    with torch.no_grad():
        inputs_FD = decoder.get_input_embeddings()(torch.from_numpy(ids[:2]))
        read = decoder.base_model(torch.from_numpy(ids[None, :4]), use_cache=True).past_key_values
        past = tuple((keys, values) for keys, values, *_ in read)
        embedded = DecoderRow(
            ids=ids[2:5], positions=range(5), scored=slice(2, 5), inputs_FD=inputs_FD
        )
        behind = DecoderRow(ids=ids[4:], positions=range(4, 9), scored=slice(2, 5), past=past)
        plain = DecoderRow(ids=ids[:5], positions=range(5), scored=slice(2, 5))
        first, second, third = label_logits(decoder, [embedded, behind, plain])
        whole = decoder(torch.from_numpy(ids[None])).logits[0]
    torch.testing.assert_close(first, whole[2:5], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(second, whole[6:9], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(third, whole[2:5], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_rows_beside_each_other_see_the_past_and_themselves_alone(build_decoder, random_ids):
    decoder, others = build_decoder(), [random_ids(4, 1), random_ids(7, 2), random_ids(2, 3)]
    embed = decoder.get_input_embeddings()
    past = read(decoder, embed(torch.from_numpy(random_ids(5)))[None], torch.arange(5)[None])
    marker_FD = embed(torch.tensor([1, 2]))
    rows = [
        DecoderRow(
            ids=ids,
            positions=range(5, 7 + len(ids)),
            scored=slice(1, 2 + len(ids)),
            inputs_FD=marker_FD,
            past=past,
        )
        for ids in others
    ]
    beside = logits_beside(decoder, past, rows)
    for own, expected in zip(beside, label_logits(decoder, rows), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)


def test_plain_rows_are_scored_as_the_model_called_alone(family, build_decoder, random_ids):
    decoder = build_decoder(family)
    rows = [DecoderRow.plain(random_ids(n, n), scored=3) for n in (5, 9)]
    with torch.no_grad():
        for row, logits_TV in zip(rows, plain_logits(decoder, rows), strict=True):
            expected = decoder(torch.from_numpy(row.ids)[None]).logits[0, -4:-1]
            torch.testing.assert_close(logits_TV, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scored", [0, 5])
def test_the_first_token_is_never_scored_and_one_is(random_ids, scored):
    with pytest.raises(InputError, match="cannot score"):
        DecoderRow.plain(random_ids(5), scored=scored)


@torch.no_grad()
def test_without_training_the_last_layer_ends_with_its_keys_and_values(
    family, build_decoder, random_ids
):
    decoder = build_decoder(family)
    inputs = embed(decoder, torch.from_numpy(random_ids(9)))[None]
    places = torch.arange(9)[None]
    passes: list[int] = []
    layers = layers_of(decoder)
    layers[-1].register_forward_hook(lambda *_: passes.append(1))
    whole = read(decoder, inputs, places)
    with torch.inference_mode():
        ended = read(decoder, inputs, places)
        behind = read(decoder, inputs[:, 5:], places[:, 5:], past=places_of(whole, 0, 5))
    assert passes == [1]
    for own, other, later in zip(whole, ended, behind, strict=True):
        for one, two, three in zip(own, other, later, strict=True):
            assert torch.equal(one, two)
            torch.testing.assert_close(one, three, atol=1e-4, rtol=1e-4)


def test_rows_that_have_begun_go_on_behind_their_first_layers(model: Any) -> None:
    decoder = model.decoder
    rows = [DecoderRow.plain(np.arange(1, n), scored=3) for n in (9, 5)]
    layers = layers_of(decoder)
    around = vars(layers[0])["forward"] = layers[0].forward
    begun = begun_rows(decoder, rows, 1)
    ran: list[int] = []
    for i, layer in enumerate(layers):
        inner = next(layer.children())
        inner.register_forward_hook(lambda *_, i=i: ran.append(i))
    for expected, found in zip(
        scored_states(decoder, rows), scored_states(decoder, begun), strict=True
    ):
        torch.testing.assert_close(found, expected)
    assert ran.count(0) < ran.count(len(layers) - 1)
    assert vars(layers[0])["forward"] is around
    assert "forward" not in vars(layers[1])


def test_rows_of_a_base_whose_layers_are_not_known_do_not_begin() -> None:
    rows = [DecoderRow.plain(np.arange(1, 9), scored=3)]
    assert begun_rows(tiny("GPTNeoXJapanese"), rows, 1) == rows
