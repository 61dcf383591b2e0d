"""Rows of like length share a forward pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from icae.model.objectives import autoencoding
from icae.model.row_groups import PASS_TOKENS, row_groups


def _cost(groups: list[list[int]], sizes: list[int], pass_tokens: int) -> int:
    return sum(len(g) * max(sizes[i] for i in g) + pass_tokens for g in groups)


def _partitions(rows: list[int]) -> list[list[list[int]]]:
    """Every way to put rows into groups."""
    if not rows:
        return [[]]
    first, rest = rows[0], rows[1:]
    found = []
    for count in range(len(rest) + 1):
        for others in itertools.combinations(rest, count):
            left = [r for r in rest if r not in others]
            found += [[[first, *others], *more] for more in _partitions(left)]
    return found


@pytest.mark.parametrize("pass_tokens", [0, 5, 40, 1000])
def test_no_partition_costs_less(pass_tokens: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(8):
        sizes = rng.integers(1, 60, size=6).tolist()
        groups = row_groups(sizes, pass_tokens=pass_tokens)
        assert sorted(itertools.chain(*groups)) == list(range(6))
        least = min(_cost(p, sizes, pass_tokens) for p in _partitions(list(range(6))))
        assert _cost(groups, sizes, pass_tokens) == least


def test_a_dear_pass_is_made_once_and_like_rows_stay_together() -> None:
    assert row_groups([9, 200, 50], pass_tokens=10_000) == [[0, 2, 1]]
    assert [sorted(g) for g in row_groups([20, 250, 21, 250], pass_tokens=64)] == [[1, 3], [0, 2]]
    assert row_groups([7], pass_tokens=64) == [[0]]


def test_logits_and_gradients_do_not_depend_on_the_grouping(
    build_model: Callable[..., Any], random_ids: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(objective_tokens=2, framing="around")
    tasks = [autoencoding(random_ids(n)) for n in (40, 4, 38, 5)]
    found = []
    for cost, passes in ((0, 4), (20, 2), (10_000, 1)):
        monkeypatch.setitem(PASS_TOKENS, "cpu", cost)
        sizes = [len(task.target_ids) + 9 for task in tasks]
        assert len(row_groups(sizes, pass_tokens=cost)) == passes
        memories = model.encode_spans([random_ids(8)] * 4, [4] * 4)
        logits = model.label_logits(memories, [[(8, 4)]] * 4, tasks)
        loss = torch.cat(logits).square().mean()
        trained = list(model.trainable().values())
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        found.append([*logits, *(g for g in gradients if g is not None)])
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
