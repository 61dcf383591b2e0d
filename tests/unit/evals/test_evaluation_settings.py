"""What no experiment can be made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icae import evals
from icae.errors import ConfigError, InputError

GRID: dict[str, Any] = {"lengths": (16,), "ratios": (2.0,), "samples": 4}
QUESTIONS: dict[str, Any] = {"ratios": (4.0,)}
GOOD: dict[str, Any] = {
    "reconstruction": evals.Reconstruction(**GRID, greedy=2),
    "continuation": evals.Continuation(**GRID),
    "slots": evals.Slots(**GRID),
    "memorisation": evals.Memorisation(**GRID),
    "refinement": evals.Refinement(**GRID, greedy=2),
    "latency": evals.Latency(ratios=(4.0,), sizes=((1, 16),)),
    "needle": evals.NeedleMap(**GRID),
    "qa": evals.Qa(**QUESTIONS),
    "texts": evals.RivalTexts(paths=(Path("x"),), samples=4, greedy=2),
}


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("reconstruction", {"lengths": ()}, "lengths are out of range"),
        ("reconstruction", {"lengths": (1,)}, "lengths are out of range"),
        ("reconstruction", {"ratios": ()}, "no ratio"),
        ("reconstruction", {"ratios": (0.5,)}, "ratio"),
        ("reconstruction", {"samples": 1, "greedy": 0}, "Too few contexts"),
        ("reconstruction", {"greedy": 5}, "greedily"),
        ("reconstruction", {"greedy": -1}, "greedily"),
        ("continuation", {"tokens": 0}, "continuation"),
        ("slots", {"examples": 5}, "examples"),
        ("memorisation", {"examples": -1}, "examples"),
        ("refinement", {"every": 0}, "between two rows"),
        ("refinement", {"steps": 0}, "steps"),
        ("refinement", {"learning_rate": 0.0}, "learning_rate"),
        ("refinement", {"kl": -1.0}, "kl_weight"),
        ("latency", {"sizes": ()}, "sizes"),
        ("latency", {"sizes": ((0, 16),)}, "sizes"),
        ("latency", {"tokens": 1}, "too little"),
        ("latency", {"repeats": 0}, "too little"),
        ("needle", {"depths": (1.5,)}, "depth"),
        ("needle", {"depths": ()}, "depth"),
        ("needle", {"kinds": ("number", "haystack")}, "not known"),
        ("needle", {"readers": ("nobody",)}, "not known"),
        ("needle", {"max_new_tokens": 0}, "no room"),
        ("needle", {"min_fidelity": 2.0}, "fidelity"),
        ("qa", {"ratios": ()}, "no ratio"),
        ("qa", {"questions": 1}, "Too few questions"),
        ("qa", {"max_new_tokens": 0}, "no room"),
        ("qa", {"readers": ("memory", "nobody")}, "not known"),
        ("qa", {"readers": ()}, "not known"),
        ("texts", {"lengths": ()}, "lengths are out of range"),
        ("texts", {"tokens": 0}, "continuation"),
        ("texts", {"greedy": 9}, "greedily"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, wrong: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(GOOD[name], **wrong)


@pytest.mark.parametrize("span", [32, 512])
def test_every_experiment_has_a_name_and_is_smaller_when_quick(span: int) -> None:
    assert len({kind.name for kind in evals.EXPERIMENTS}) == len(evals.EXPERIMENTS)
    for kind in evals.EXPERIMENTS:
        made = (kind.sized(span, **settings) for settings in (kind.quick, kind.full))
        quick, full = (getattr(one, "samples", None) or one.questions for one in made)
        assert quick <= full


def test_a_length_beyond_the_decoder_or_the_span_is_refused(run: Any) -> None:
    with pytest.raises(InputError, match="does not fit the decoder") as caught:
        run(evals.Reconstruction(lengths=(150,), ratios=(2.0,), samples=2, greedy=0))
    assert caught.value.expected == "at most 256"
    with pytest.raises(InputError, match="single spans") as caught:
        run(replace(GOOD["refinement"], lengths=(12, 17)))
    assert caught.value.got == "a length of 17 tokens"
    assert caught.value.expected == "at most the adapter's span length, 16"
