"""Options that several commands share, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli.command import AsJson
from icae.cli.console import status
from icae.cli.vllm_options import EngineModel, EngineUrl, engine_address

if TYPE_CHECKING:
    from icae.decode.reader import Reader
    from icae.decode.vllm.client import VllmAddress
    from icae.engine import Icae

__all__ = ["AsJson"]

Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter", metavar="PATH", help="Adapter folder.", show_default="the default adapter"
    ),
]

Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="ID",
        help="Base model: a name, a hub id or a folder.",
        show_default="the adapter's",
    ),
]

Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="For example cpu or cuda:0.", show_default="the best found"
    ),
]

Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="Precision of the base model: bfloat16 or float32.",
        show_default="chosen for the device",
    ),
]

Ratio = Annotated[float, typer.Option("--ratio", metavar="N", help="Context tokens per slot.")]

KeepKv = Annotated[
    bool,
    typer.Option(
        "--kv",
        help="Keep the decoder's key-value cache of the memory in a file beside it, so that "
        "later questions start at once. One that is there is used and renewed anyway.",
    ),
]

MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest answer in tokens.")
]

Force = Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")]

Runtime = Annotated[
    str,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="What runs the decoder: auto (vllm with --engine, else llama.cpp where it is "
        "installed and no other device than the CPU is there, else torch), torch, llamacpp "
        "or vllm.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which base model and adapter a command loads, and where to."""

    adapter: Adapter = None
    base: Base = None
    device: Device = None
    dtype: Dtype = None

    def load(self) -> Icae:
        """Load the base model and the adapter.

        Raises:
            BaseModelError: If the base model cannot be loaded.
            AdapterError: If the adapter cannot be loaded.
        """
        from icae import engine

        with status("Loading the model"):
            return engine.load(self.adapter, base=self.base, device=self.device, dtype=self.dtype)

    def reader(
        self, runtime: str, *, server: VllmAddress | None = None, loaded: Icae | None = None
    ) -> Reader:
        """Open what reads memories.

        Args:
            runtime: ``auto``, ``torch``, ``llamacpp`` or ``vllm``.
            server: The vLLM server of the runtime ``vllm``, or None.
            loaded: What answers with torch if it is loaded already.

        Raises:
            InputError: If there is no such runtime.
            BaseModelError: If the base model cannot be loaded.
            AdapterError: If the adapter cannot be loaded.
            MissingDependencyError: If the runtime is not installed.
            ServiceError: If the server cannot be asked.
        """
        from icae import opening

        with status("Loading the model"):
            return opening.open_reader(
                self.adapter,
                base=self.base,
                runtime=opening.runtime_name(runtime),
                device=self.device,
                dtype=self.dtype,
                engine=server,
                load_torch=None if loaded is None else lambda *_, **__: loaded,
            )


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(ModelOptions):
    """What reads memories: the model, and what runs its decoder."""

    runtime: Runtime = "auto"
    engine: EngineUrl = None
    engine_model: EngineModel = None

    def __post_init__(self) -> None:
        engine_address(self.engine, self.engine_model)

    def open(self) -> Reader:
        """Open what reads memories; raises as `reader` does."""
        return self.reader(self.runtime, server=engine_address(self.engine, self.engine_model))
