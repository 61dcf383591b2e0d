"""Starting from an adapter with fewer objective tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from icae.config.types import OBJECTIVES
from icae.model import IcaeModel
from icae.train.run import grow_objectives


def test_trained_objective_vectors_become_the_last_of_each_row(
    build_model: Callable[..., IcaeModel],
) -> None:
    old, model = build_model(), build_model(objective_tokens=3)
    own = {"tokens.objective_ND": old.tokens.objective_ND.detach() + 1, "other": torch.zeros(1)}
    grown = grow_objectives(own, model)
    rows = grown["tokens.objective_ND"].unflatten(0, (len(OBJECTIVES), 3))
    fresh = model.tokens.objective_ND.detach().unflatten(0, (len(OBJECTIVES), 3))
    assert torch.equal(rows[:, 2], own["tokens.objective_ND"])
    assert torch.equal(rows[:, :2], fresh[:, :2])
    assert grown["other"] is own["other"]


def test_equal_numbers_of_objective_tokens_change_nothing(
    build_model: Callable[..., IcaeModel],
) -> None:
    own: dict[str, Any] = {"tokens.objective_ND": torch.zeros(3, 32)}
    assert grow_objectives(own, build_model()) is own
