from __future__ import annotations

from typing import Any

import pytest
import torch

from icae.errors import ConfigError
from icae.model.gist import GistModel
from icae.model.objectives import autoencoding
from icae.model.positions import encoder_positions


@pytest.fixture
def gist(build_model):
    return build_model(method="gist", objective_tokens=2)


def one_pass_logits(model: GistModel, weights: Any, context: Any, slots: int, task: Any) -> Any:
    """Logits at the targets of one pass over everything, under the mask of the paper."""
    length, markers = len(context), model.config.objective_tokens
    embed = model.decoder.get_input_embeddings()
    inputs = torch.cat(
        [
            embed(torch.from_numpy(context)),
            model.tokens.memory(torch.arange(slots)),
            model.markers(task.objective),
            embed(torch.from_numpy(task.input_ids)),
        ]
    )
    size, behind = len(inputs), length + slots
    hidden_ij = torch.triu(torch.ones(size, size, dtype=torch.bool), diagonal=1)
    hidden_ij[behind:, :length] = True  # what follows the gist tokens never sees the context
    mask = torch.zeros(size, size).masked_fill(hidden_ij, torch.finfo(torch.float32).min)
    places = encoder_positions(model.config.layout, length, slots)
    places += range(max(places) + 1, max(places) + 1 + size - behind)
    hidden = weights.base_model(
        inputs_embeds=inputs[None],
        attention_mask=mask[None, None],
        position_ids=torch.tensor(places)[None],
        use_cache=False,
    ).last_hidden_state[0]
    return model.decoder.get_output_embeddings()(hidden[behind + markers - 1 :])


@pytest.mark.parametrize("layout", ["default", "uniform-encoder"])
def test_with_the_same_weights_it_is_one_pass_under_the_gist_mask(build_model, random_ids, layout):
    # The LoRA of a fresh model changes nothing, so both passes go through the base weights.
    model = build_model(method="gist", trained=False, layout=layout, objective_tokens=2)
    context, task = random_ids(12), autoencoding(random_ids(7, 3))
    with torch.no_grad():
        (memory,) = model.encode([context], [4.0])
        (logits,) = model.label_logits([memory], [task])
        expected = one_pass_logits(model, model.decoder, context, 3, task)
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)


def test_the_lora_writes_the_gist_tokens_and_has_no_part_in_reading_them(gist, random_ids):
    context, task = random_ids(12), autoencoding(random_ids(7, 3))
    with torch.no_grad():
        (memory,) = gist.encode([context], [4.0])
        (logits,) = gist.label_logits([memory], [task])
        both_tuned = one_pass_logits(gist, gist.lora.get_base_model(), context, 3, task)
        none_tuned = one_pass_logits(gist, gist.decoder, context, 3, task)
    for other in (both_tuned, none_tuned):
        assert (logits - other).abs().max() > 1e-2


@pytest.mark.parametrize(("layout", "end"), [("default", 30), ("uniform-encoder", 24)])
def test_spans_stand_one_behind_the_other(build_model, random_ids, layout, end):
    model, context = build_model(method="gist", layout=layout), random_ids(24)
    with torch.no_grad():
        (both,) = model.encode([context], [4.0])
        (first,) = model.encode([context[:16]], [4.0])
    assert (both.places, both.end) == (6, end)
    for whole, part in zip(both.key_values, first.key_values, strict=True):
        torch.testing.assert_close(whole[0][:, :, :4], part[0], atol=2e-5, rtol=1e-4)


def test_objective_tokens_before_gist_tokens_are_refused(build_model):
    with pytest.raises(ConfigError, match="GIST has one framing"):
        build_model(method="gist", framing="around")
