"""The torch runtime and another one on the same tiny model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from icae.config.types import OWN_TOKENS
from icae.decode.checkpoint import BaseFolder
from icae.decode.torch import TorchRuntime
from icae.decode.vllm.client import VllmAddress, VllmClient
from icae.decode.vllm.runtime import VllmRuntime
from vllm_stub import VllmStub, vllm_stub


@pytest.fixture
def start(tmp_path: Path, build_model: Any) -> Iterator[Callable[..., Any]]:
    """``start(family, config={}, dtype=..., address={}, **stub)``: torch, vLLM and its stub."""
    with ExitStack() as stack:
        number = itertools.count()

        def begin(
            family: str = "llama",
            *,
            config: dict[str, Any] | None = None,
            dtype: Any = "float32",
            address: dict[str, Any] | None = None,
            **settings: Any,
        ) -> tuple[TorchRuntime, VllmRuntime, VllmStub]:
            model = build_model(family, **(config or {}))
            folder = tmp_path / f"base-{next(number)}"
            model.decoder.save_pretrained(folder)
            stub = stack.enter_context(vllm_stub(settings.pop("runs", model.decoder), **settings))
            client = VllmClient(VllmAddress(url=stub.url, **(address or {})))
            client._client.max_retries = 0
            vectors = {name: model.tokens.objective(name).detach().numpy() for name in OWN_TOKENS}
            base = BaseFolder.open(folder)
            runtime = VllmRuntime(
                client, base, model.config, vectors, bases=("tiny-base",), dtype=dtype
            )
            stub.bodies.clear()
            stub.dtypes.clear()
            return TorchRuntime(model), runtime, stub

        yield begin


@pytest.fixture
def build_both(build_model: Any, tmp_path: Path) -> Callable[..., tuple[TorchRuntime, Any]]:
    """``build_both(family, dtype=..., **config)``: torch and llama.cpp, where it is installed."""
    pytest.importorskip(
        "llama_cpp", reason="llama-cpp-python is not installed; `make test-llamacpp` installs it"
    )
    from icae.decode.cache_order import find_order
    from icae.decode.llamacpp.context import LlamaModel
    from icae.decode.llamacpp.forms import CacheEntry
    from icae.decode.llamacpp.runtime import LlamaCppRuntime
    from icae.decode.llamacpp.weights import write_gguf

    def build(
        family: str = "llama", *, dtype: Any = "float32", **config: Any
    ) -> tuple[TorchRuntime, Any]:
        if family == "gpt-neox":
            pytest.skip("its weights are not written for llama.cpp")
        model = build_model(family, **config)
        folder = tmp_path / family
        model.decoder.save_pretrained(folder)
        write_gguf(BaseFolder.open(folder), folder / f"{dtype}.gguf", dtype)
        weights, entry = LlamaModel(folder / f"{dtype}.gguf"), None
        vectors = {name: model.tokens.objective(name).detach().numpy() for name in OWN_TOKENS}
        if "memory" in config:
            embedding = model.decoder.get_input_embeddings().weight.detach().numpy()
            order = find_order(model.decoder, weights)
            entry = CacheEntry(order=order, embed=lambda ids: embedding[ids])
        return TorchRuntime(model), LlamaCppRuntime(
            weights, model.config, vectors, dtype=dtype, entry=entry
        )

    return build


@pytest.fixture(params=["llamacpp", "vllm"])
def beside_torch(request: pytest.FixtureRequest) -> Callable[..., tuple[TorchRuntime, Any]]:
    """``beside_torch(family, **config)``: torch and another runtime on one tiny model."""
    if request.param == "llamacpp":
        return request.getfixturevalue("build_both")  # type: ignore[no-any-return]
    start = request.getfixturevalue("start")

    def begin(family: str = "llama", **config: Any) -> tuple[TorchRuntime, Any]:
        if "memory" in config:
            pytest.skip("a vLLM server reads no keys and values")
        torch_runtime, vllm, _ = start(family, config=config)
        return torch_runtime, vllm

    return begin


@pytest.fixture
def joined_midway() -> Callable[..., dict[int, list[int]]]:
    """``joined_midway(decoding, requests, limits)``: tokens of answers, by the request's index.

    One or two join at every second step.
    """

    def write(decoding: Any, requests: Any, limits: Any) -> dict[int, list[int]]:
        written: dict[int, list[int]] = {i: [] for i in range(len(requests))}
        waiting, steps = list(written), 0
        while waiting or decoding:
            if waiting and steps % 2 == 0:
                new = [waiting.pop(0) for _ in range(1 + steps // 2 % 2) if waiting]
                step = decoding.join({i: (requests[i], limits[i]) for i in new})
            else:
                step = decoding.step()
            steps += 1
            for row, token in step.items():
                written[row].append(token)
        return written

    return write
