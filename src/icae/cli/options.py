"""Options that several commands share, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli import engine
from icae.cli.command import AsJson
from icae.cli.console import status
from icae.cli.output_file import check_output
from icae.cli.vllm_options import EngineModel, EngineUrl, engine_address

if TYPE_CHECKING:
    from icae.decode.reader import Reader
    from icae.engine import Icae

__all__ = ["AsJson"]

MemoryPath = Annotated[Path, typer.Argument(metavar="MEMORY", help="A memory file (.icae).")]

MemoryPaths = Annotated[
    list[Path],
    typer.Argument(metavar="MEMORY", help="Memory files (.icae); several are concatenated."),
]

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

NearRatio = Annotated[
    float | None,
    typer.Option(
        "--ratio",
        metavar="N",
        help="Context tokens per slot of the new spans.",
        show_default="that of the nearest span",
    ),
]

Force = Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")]


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
        with status("Loading the model"):
            return engine.open_engine(
                adapter=self.adapter, base=self.base, device=self.device, dtype=self.dtype
            )


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(ModelOptions):
    """What reads memories: the model, and what runs its decoder."""

    runtime: Runtime = "auto"
    engine: EngineUrl = None
    engine_model: EngineModel = None

    def open(self) -> Reader:
        """Open the decoder in the runtime asked for.

        Raises:
            InputError: If there is no such runtime.
            BaseModelError: If the base model cannot be loaded.
            AdapterError: If the adapter cannot be loaded.
            MissingDependencyError: If the runtime is not installed.
            ServiceError: If the vLLM server cannot be asked.
        """
        server = engine_address(self.engine, self.engine_model)
        with status("Loading the model"):
            return engine.open_reader(
                runtime=self.runtime,
                adapter=self.adapter,
                base=self.base,
                device=self.device,
                dtype=self.dtype,
                server=server,
            )


@dataclass(frozen=True, kw_only=True)
class ChangedMemory:
    """Where a memory goes that a command changed: in the place of the old one, if unsaid."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Memory file to write.",
            show_default="MEMORY itself is replaced",
        ),
    ] = None
    force: Force = False

    def target(self, memory: Path) -> Path:
        """The file to write.

        Args:
            memory: The memory that changes.

        Raises:
            InputError: If it would destroy something or cannot be written.
        """
        if self.output is None:
            check_output(memory, if_exists="replace")
            return memory
        check_output(self.output, if_exists="replace" if self.force else "refuse", inputs=[memory])
        return self.output
