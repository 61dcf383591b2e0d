"""The one place where commands reach the layers that need a model.

Every import here is inside a function, so that the command line starts at once and
`icae inspect` never loads torch. Tests replace these functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from icae.decode.vllm.client import VllmAddress
    from icae.decode.vllm.runtime import VllmRuntime
    from icae.engine import Icae
    from icae.serve.bulk import Encoder

Stage = Literal["pretrain", "finetune"]


def open_engine(
    *, adapter: str | None, base: str | None, device: str | None, dtype: str | None
) -> Icae:
    """Load the base model and an adapter.

    Args:
        adapter: Adapter folder, or None for the default.
        base: Base model, or None for the adapter's.
        device: Torch device, or None for the best found.
        dtype: Precision of the base model, or None for the device's usual one.

    Raises:
        BaseModelError: If the base model cannot be loaded.
        AdapterError: If the adapter cannot be loaded.
    """
    from icae import engine as api

    return api.load(adapter, base=base, device=device, dtype=dtype)


def connect_engine(icae: Icae, server: VllmAddress, *, adapter: str | None) -> VllmRuntime:
    """Let a vLLM server answer for a loaded model.

    Args:
        icae: The model.
        server: The server.
        adapter: Adapter folder that was loaded, or None for the default.

    Raises:
        BaseModelError: If the server runs another model.
        MissingDependencyError: If its client is not installed.
        ServiceError: If it cannot be asked, or takes no embeds.
    """
    from icae import opening

    own = icae.provenance
    return opening.connect_vllm(server, adapter, base=own.base_model, dtype=own.slot_dtype)


def open_tokenizer(base: str) -> tuple[Any, str]:
    """Load the tokenizer of a base model, without its weights.

    Args:
        base: Base model: a name, a hub id or a folder.

    Returns:
        The tokenizer and its hash.

    Raises:
        BaseModelError: If it cannot be loaded.
    """
    from icae import model

    tokenizer = model.load_tokenizer(base)
    return tokenizer, model.tokenizer_hash(tokenizer)


def bulk_opener(
    *, adapter: str | None, base: str | None, device: str | None, dtype: str | None, threads: int
) -> Callable[[], Encoder]:
    """What loads the engine in a worker of a bulk run.

    Args:
        adapter: Adapter folder, or None for the default.
        base: Base model, or None for the adapter's.
        device: Torch device, or None for the best found.
        dtype: Precision of the base model, or None for the device's usual one.
        threads: CPU threads of a worker.
    """
    from icae.serve.bulk import EngineOpener

    return EngineOpener(adapter=adapter, base=base, device=device, dtype=dtype, threads=threads)
