"""A tiny engine and a tiny corpus of short documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sacrebleu")
pytest.importorskip("matplotlib")

WORDS = "the inner lamp of a harbour town turned in the rain over other men and their nets"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of six documents of about 190 tokens, each of other words."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(6):
        words = np.random.default_rng(i).choice(WORDS.split(), 60)
        (folder / f"{i}.txt").write_text(" ".join(words), encoding="utf-8")
    return folder


@pytest.fixture
def windows(engine: Any, corpus: Path) -> Callable[..., Any]:
    """``windows(size, samples)``: what experiments of such settings draw from the corpus."""
    from icae.evals.contexts import draw_windows, read_documents

    def draw(size: int, samples: int) -> Any:
        documents = read_documents([corpus], engine.tokenizer)
        return draw_windows(documents, size=size, samples=samples, seed=0).windows

    return draw


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """``write_lines(name, rows)``: a file of JSON lines."""

    def write(name: str, rows: Iterable[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def settings() -> Any:
    """Two lengths (one of several spans) and two ratios on a few contexts."""
    from icae.evals import Reconstruction

    return Reconstruction(lengths=(16, 24), ratios=(2.0, 4.0), samples=4, greedy=2)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture is drawn, which would take longer than all the rest; resamples are few."""
    monkeypatch.setattr("icae.evals.results.picture", lambda rows, plots, title: title.encode())
    monkeypatch.setattr("icae.evals.bootstrap.RESAMPLES", 20)


@pytest.fixture
def run(engine: Any, corpus: Path, tmp_path: Path, quick: None) -> Callable[..., Any]:
    """``run(settings, inputs=..., folder=..., **options)``: an experiment on the tiny engine."""
    from icae.evals import evaluate

    def call(settings: Any, *, inputs: Any = None, folder: str = "out", **options: Any) -> Any:
        where = {"folder": tmp_path / folder, "command": "icae eval"}
        return evaluate(engine, inputs or [corpus], settings, **where, **options)

    return call
