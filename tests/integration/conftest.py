"""`icae serve` as a process of its own, with a tiny model on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]


@pytest.fixture(scope="session")
def tiny_adapter(
    tmp_path_factory: pytest.TempPathFactory,
    build_model: Callable[..., Any],
    tokenizer: Any,
    info_for: Callable[..., Any],
) -> Path:
    """A tiny base model and an adapter for it, on disk."""
    from icae.model import save_adapter

    folder = tmp_path_factory.mktemp("tiny")
    model, base = build_model(), folder / "base"
    model.decoder.save_pretrained(base)
    tokenizer.save_pretrained(base)
    return save_adapter(model, info_for(model, tokenizer, base=str(base)), folder / "adapter")


@pytest.fixture(scope="session")
def serving(tiny_adapter: Path) -> Serving:
    """``with serving(store, *options) as (process, url)``: a server process and its address."""

    @contextmanager
    def serve(store: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        command = [sys.executable, "-m", "icae.cli.app", "serve", "--adapter", str(tiny_adapter)]
        command += ["--store", str(store), "--port", "0", "--dtype", "float32", "--device", "cpu"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.Popen(
            [*command, *options], stderr=subprocess.PIPE, text=True, env=environment
        )
        try:
            assert process.stderr is not None
            line = ""
            while "Serving " not in line:
                line = process.stderr.readline()
                assert line, "the server did not start"
            yield process, line.split(" at ")[1].split("/v1")[0]
        finally:
            process.kill()
            process.wait()

    return serve
