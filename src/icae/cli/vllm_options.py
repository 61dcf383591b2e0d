"""`--engine`: a vLLM server that runs the decoder."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from icae.decode.vllm.client import VllmAddress

KEY = "ICAE_ENGINE_KEY"
"""Environment variable with the key of the server."""

SECRET = "ICAE_ENGINE_SECRET"
"""Environment variable with what the cache salts are made from."""

EngineUrl = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="URL",
        help="A vLLM server that runs the decoder, started with --enable-prompt-embeds; "
        f"its key is read from ${KEY}.",
    ),
]

EngineModel = Annotated[
    str | None,
    typer.Option(
        "--engine-model",
        metavar="NAME",
        help="Name of the base model on the vLLM server.",
        show_default="found by the name of the base",
    ),
]


def engine_address(url: str | None, model: str | None) -> VllmAddress | None:
    """What ``--engine`` and ``--engine-model`` say, with what the environment adds.

    Args:
        url: Address of the server, or None for none.
        model: Name of the model there, or None.

    Raises:
        typer.BadParameter: If there is a name without an address.
        ConfigError: If the address is no URL.
    """
    if url is None:
        if model is not None:
            raise typer.BadParameter(
                "it names a model of a vLLM server, and there is no --engine.",
                param_hint="--engine-model",
            )
        return None
    from icae.decode.vllm.client import VllmAddress

    return VllmAddress(
        url=url,
        model=model,
        api_key=os.environ.get(KEY, ""),
        secret=os.environ.get(SECRET, ""),
    )


def with_secret(address: VllmAddress) -> VllmAddress:
    """The address with a secret of its own, where the environment gave none.

    Args:
        address: The server.
    """
    return address if address.secret else replace(address, secret=secrets.token_hex(32))
