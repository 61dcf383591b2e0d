"""The losses of ten steps stay what they were; see regenerate.py for how to change them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from regenerate import STEPS, WEIGHTS, golden_file, golden_losses

from icae.config.types import Objective


@pytest.mark.parametrize("objective", WEIGHTS)
def test_losses_of_ten_steps_are_those_on_file(objective: Objective, tmp_path: Path) -> None:
    expected = json.loads(golden_file(objective).read_text(encoding="utf-8"))
    assert expected["objective"] == objective
    assert len(expected["losses"]) == STEPS
    assert golden_losses(objective, tmp_path) == pytest.approx(expected["losses"], rel=1e-4)
