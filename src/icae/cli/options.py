"""Options that several commands share, each declared once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import BadParameter, Option

from icae.cli.console import status

if TYPE_CHECKING:
    from icae.decode.reader import Reader
    from icae.decode.vllm.client import VllmAddress
    from icae.engine import Engine
    from icae.memory import Provenance

Base = Annotated[
    str | None,
    Option(
        metavar="ID",
        help="Base model: a name, a hub id or a folder.",
        show_default="the adapter's",
    ),
]

Count = Annotated[int, Option(min=1, metavar="N")]

Device = Annotated[
    str | None,
    Option(metavar="NAME", help="For example cpu or cuda:0.", show_default="the best found"),
]

Dtype = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Precision of the base model: bfloat16 or float32.",
        show_default="chosen for the device",
    ),
]

Force = Annotated[bool, Option("--force", help="Replace the output file if it exists.")]

KeepKv = Annotated[
    bool,
    Option(
        "--kv",
        help="Keep the decoder's key-value cache of the memory in a file beside it, so that "
        "later questions start at once. One that is there is used and renewed anyway.",
    ),
]

MaxNewTokens = Annotated[int, Option(min=1, metavar="N", help="Longest answer in tokens.")]

Ratio = Annotated[float, Option("--ratio", metavar="N", help="Context tokens per slot.")]

Runtime = Annotated[
    str,
    Option(
        metavar="NAME",
        help="What runs the decoder: auto (vllm with --engine, else llama.cpp where it is "
        "installed and no other device than the CPU is there, else torch), torch, llamacpp "
        "or vllm.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class BaseOptions:
    """Which base model a command loads, and where to."""

    base: Base = None
    device: Device = None
    dtype: Dtype = None


@dataclass(frozen=True, kw_only=True)
class ModelOptions(BaseOptions):
    """Which adapter a command loads on which base model.

    Attributes:
        adapter: Adapter folder.
    """

    adapter: Annotated[
        str | None, Option(metavar="PATH", show_default="the memory's, else the default one")
    ] = None

    def load(self, made_by: Provenance | None = None) -> Engine:
        """Load the base model and the adapter; as `icae.engine.load`."""
        from icae import engine

        with status("Loading the model"):
            return engine.load(
                self.adapter,
                made_by=made_by,
                base=self.base,
                device=self.device,
                dtype=self.dtype,
            )

    def reader(
        self,
        runtime: str,
        made_by: Provenance | None = None,
        *,
        server: VllmAddress | None = None,
        loaded: Engine | None = None,
    ) -> Reader:
        """Open what reads memories, as `icae.opening.open_reader`, whose errors it raises.

        `made_by` tells the adapter where none is named; `loaded` answers with torch if it is loaded
        already; `server` is that of the runtime ``vllm``.
        """
        from icae import opening

        with status("Loading the model"):
            return opening.open_reader(
                self.adapter,
                made_by=made_by,
                base=self.base,
                runtime=opening.runtime_name(runtime),
                device=self.device,
                dtype=self.dtype,
                engine=server,
                load_torch=None if loaded is None else lambda *_, **__: loaded,
            )


@dataclass(frozen=True, kw_only=True)
class VllmOptions:
    """A vLLM server that runs the decoder.

    Attributes:
        engine: A vLLM server that runs the decoder, started with --enable-prompt-embeds; its
            key is read from $ICAE_ENGINE_KEY.
        engine_model: Name of the base model on the vLLM server.
    """

    engine: Annotated[str | None, Option(metavar="URL")] = None
    engine_model: Annotated[
        str | None, Option(metavar="NAME", show_default="found by the name of the base")
    ] = None

    def __post_init__(self) -> None:
        self.server()

    def server(self) -> VllmAddress | None:
        """Where the server is, with its key and the secret of cache salts from the environment."""
        if self.engine is None:
            if self.engine_model is not None:
                raise BadParameter(
                    "it names a model of a vLLM server, and there is no --engine.",
                    param_hint="--engine-model",
                )
            return None
        from icae.decode.vllm.client import VllmAddress

        return VllmAddress(
            url=self.engine,
            model=self.engine_model,
            api_key=os.environ.get("ICAE_ENGINE_KEY", ""),
            secret=os.environ.get("ICAE_ENGINE_SECRET", ""),
        )


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(ModelOptions, VllmOptions):
    """What reads memories: the model, and what runs its decoder."""

    runtime: Runtime = "auto"

    def open(self, made_by: Provenance | None = None) -> Reader:
        """Open what reads memories; as `reader`."""
        return self.reader(self.runtime, made_by, server=self.server())


def split_names(text: str) -> tuple[str, ...]:
    """The names of a list such as ``A,B``, without spaces around them, each once, in order."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))
