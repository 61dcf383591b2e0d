from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from icae.evals import Adaptive
from icae.evals.adaptive import share_of_fixed


@pytest.fixture
def settings() -> Adaptive:
    """Contexts of two spans; one policy of each kind."""
    return Adaptive(
        lengths=(24,),
        ratios=(2.0, 4.0),
        min_fidelities=(0.2,),
        budgets=(0.5,),
        refined=(0.5,),
        steps=3,
        samples=2,
    )


def by_text(rows: Any) -> dict[str, Any]:
    return {row["text"]: row for row in rows}


def test_every_policy_has_a_row_and_keeps_its_promise(run: Any, settings: Any) -> None:
    rows = by_text(run(settings).rows)
    assert list(rows) == [
        "fixed 2x",
        "fixed 4x",
        "budget 0.5",
        "min fidelity 0.2",
        "min fidelity, refined 0.5",
    ]
    assert rows["fixed 2x"]["positions_share"]["value"] == 0.5
    assert rows["fixed 4x"]["positions_share"]["value"] == 0.25
    assert max(rows["budget 0.5"]["per_context"]["positions_share"]) <= 0.5
    assert min(rows["min fidelity 0.2"]["per_context"]["fidelity"]) >= 0.2
    assert min(rows["min fidelity, refined 0.5"]["per_context"]["fidelity"]) >= 0.5


def test_fixed_row_is_what_compressing_at_that_ratio_gives(
    run: Any, settings: Any, engine: Any, windows: Any
) -> None:
    from icae.compression.compressor import verbatim_spans

    alone = replace(settings, min_fidelities=(), budgets=(), refined=())
    row = by_text(run(alone).rows)["fixed 4x"]
    for i, window in enumerate(windows(24 + 33, 2)):
        ids = window.context(24, after=33)
        segments = engine.compressor.encode(verbatim_spans(ids, engine.config), ratio=4.0)
        held = sum(s.token_fidelity.reproduced.sum() for s in segments)
        assert row["per_context"]["fidelity"][i] == pytest.approx(held / 24)


def test_whole_text_verbatim_has_all_tokens_and_the_loss_of_raw_tokens(
    run: Any, settings: Any
) -> None:
    row = by_text(run(replace(settings, min_fidelities=(1.0,), budgets=(), refined=())).rows)[
        "min fidelity 1"
    ]
    for key in ("positions_share", "fidelity", "verbatim", "exact"):
        assert row[key]["value"] == 1.0
    assert row["fixed_share"] == 1.0
    assert np.isfinite(row["loss"]["value"])


@pytest.mark.parametrize(
    ("fidelity", "share"), [(0.4, 0.25), (0.5, 0.375), (0.6, 0.5), (0.8, 0.75), (0.3, None)]
)
def test_share_of_fixed_ratios_lies_on_the_line_through_them(
    fidelity: float, share: float | None
) -> None:
    points = ((0.25, 0.4), (0.5, 0.6))
    rows = [
        {"kind": "fixed ratio", "positions_share": {"value": p}, "fidelity": {"value": f}}
        for p, f in points
    ]
    other = {"kind": "budget", "positions_share": {"value": 0.3}, "fidelity": {"value": 0.9}}
    found = share_of_fixed([*rows, other], fidelity)
    assert found == (None if share is None else pytest.approx(share))
