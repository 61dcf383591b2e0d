"""A base is tried on a few ids: what fails is named, with how much, whatever the architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.bases.architectures import LONGROPE, tiny, tiny_config
from torch import nn

from icae.errors import BaseModelError
from icae.model import self_check as module
from icae.model.base import computation_hash
from icae.model.self_check import checked_base, kept_check, self_check


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))


def failed(decoder: Any) -> list[str]:
    return [finding.check for finding in self_check(decoder) if not finding.holds]


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "FalconH1", "Phi3", "Cohere2", "GptOss"])
def test_a_sound_base_passes_every_check(name):
    found = self_check(tiny(name))
    assert [f for f in found if not f.holds] == []
    assert [f.check for f in found] == list(module.CHECKS)


def test_positions_that_are_absolute_are_found():
    assert failed(tiny("GPT2")) == ["positions"]


def test_a_head_beyond_the_models_own_is_found(monkeypatch):
    def product(decoder: Any, hidden_TD: torch.Tensor) -> torch.Tensor:
        return decoder.get_output_embeddings()(hidden_TD).float()

    monkeypatch.setattr("icae.model.decoder.vocabulary_logits", product)
    assert failed(tiny("Cohere2")) == ["head", "rows"]


def test_rope_that_changes_within_the_positions_in_use_is_found(monkeypatch):
    monkeypatch.setattr(module, "steady_positions", lambda config: 512)
    assert failed(tiny("Phi3")) == ["cache"]


def test_chance_in_a_base_is_found():
    class Noisy(nn.Module):
        def __init__(self, own: nn.Module) -> None:
            super().__init__()
            self.own = own

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.own(x) + 0.1 * torch.rand(())

    decoder = tiny("Llama")
    decoder.model.layers[0].mlp = Noisy(decoder.model.layers[0].mlp)
    assert "again" in failed(decoder)


def test_a_base_that_fails_is_refused_with_what_by_how_much_and_what_to_do(tmp_path):
    decoder = tiny("GPT2")
    with pytest.raises(BaseModelError, match="would be wrong") as caught:
        checked_base(str(tmp_path), decoder)
    assert "positions: off by" in str(caught.value.got)
    assert f"icae check {tmp_path}" in str(caught.value.fix)


def test_a_base_is_tried_once_and_again_when_its_settings_change(monkeypatch):
    decoder = tiny("Llama")
    tried: list[Any] = []
    own = module.self_check
    monkeypatch.setattr(module, "self_check", lambda d: tried.append(d) or own(d))
    first = kept_check(decoder, "weights")
    assert kept_check(decoder, "weights") == first
    assert len(tried) == 1
    decoder.config.rms_norm_eps = 0.1
    kept_check(decoder, "weights")
    assert kept_check(decoder, "weights", anew=True)
    assert len(tried) == 3


def test_settings_that_change_what_weights_compute_change_the_hash():
    plain = computation_hash(tiny_config("Llama"))
    for changed in (
        {"rope_parameters": LONGROPE},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
        {"rms_norm_eps": 1e-3},
        {"hidden_act": "gelu"},
    ):
        assert computation_hash(tiny_config("Llama", **changed)) != plain
    for same in (
        {"attention_dropout": 0.5},
        {"initializer_range": 1.0},
        {"use_cache": False},
        {"rms_norm_eps": 9.99999997e-7, "rope_parameters": {"rope_theta": 10_000}},
    ):
        assert computation_hash(tiny_config("Llama", **same)) == plain
