"""Opening what reads memories: the fastest runtime that is installed, or the one asked for.

With llama.cpp neither torch nor transformers is imported, unless the base weights have to
be converted for the first time.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from icae.decode.checkpoint import BaseFolder, read_settings
from icae.decode.reader import Reader
from icae.errors import AdapterError, BaseModelError, InputError
from icae.memory import KeyValueSlots, Provenance
from icae.memory.provenance import KEY_VALUE_DTYPE
from icae.model.adapter_files import (
    AdapterInfo,
    adapter_folder,
    adapter_hash,
    read_info,
    require_base,
    require_slots,
)
from icae.model.adapter_vectors import closing_vectors, lead_vectors, objective_vectors
from icae.model.base_files import (
    DEFAULT_BASE,
    DEFAULT_HUB_ID,
    converted_folder,
    embedded_gguf,
    end_of_answers,
    recorded_hash,
    stop_tokens,
    tokenizer_hash,
)
from icae.model.hub import base_snapshot

if TYPE_CHECKING:
    from icae.config.types import KeyValueShape
    from icae.decode.runtime import Runtime
    from icae.decode.vllm.client import VllmAddress
    from icae.decode.vllm.runtime import VllmRuntime
    from icae.engine import Engine
    from icae.memory.provenance import SlotDtype

RuntimeName = Literal["auto", "torch", "llamacpp", "vllm"]
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)

NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""There where an NVIDIA driver is loaded: told without importing torch."""

log = logging.getLogger(__name__)


def open_reader(
    adapter: str | Path | None = None,
    *,
    made_by: Provenance | None = None,
    base: str | None = None,
    runtime: RuntimeName = "auto",
    device: str | None = None,
    dtype: str | None = None,
    engine: VllmAddress | None = None,
    load_torch: Callable[..., Reader] | None = None,
) -> Reader:
    """Open an adapter for reading memories; adapter, base, device and dtype as for `icae.load`.

    Args:
        adapter: Adapter folder; by default the one in the package that `made_by` names.
        made_by: What made the memories that are to be read: ``memory.provenance``.
        base: Base model; by default the one the adapter records.
        runtime: ``auto``: vLLM where the address of a server is given; else llama.cpp where
            it is installed, knows the base model, and no other device than the CPU is there
            or asked for; else torch.
        device: Torch device.
        dtype: ``bfloat16`` or ``float32``.
        engine: The vLLM server, for the runtime ``vllm``.
        load_torch: What loads the torch runtime, in place of `icae.load`.

    Raises:
        InputError: If runtime, device or dtype is not known, or they do not go together.
        MissingDependencyError: If what runs it is asked for and not installed.
        AdapterError: If the adapter cannot be read or belongs to another base.
        IncompatibleMemoryError: If no adapter is given and none in the package made them.
        BaseModelError, ServiceError: If base model or server cannot be had.
    """
    runtime, adapter = runtime_name(runtime), adapter_folder(adapter, made_by)
    if engine is not None or runtime == "vllm":
        return open_vllm(_engine(runtime, engine, device), adapter, base=base, dtype=dtype)
    load = load_torch or _open_torch
    if runtime == "torch" or (runtime == "auto" and not _prefers_llamacpp(device)):
        return load(adapter, base=base, device=device, dtype=dtype)
    _require_cpu(device)
    try:
        return open_llamacpp(adapter, base=base, dtype=dtype)
    except (AdapterError, BaseModelError, InputError) as error:
        if runtime == "llamacpp":
            raise
        log.warning("Answering with torch, as llama.cpp cannot: %s", error.message)
        return load(adapter, base=base, device=device, dtype=dtype)


def runtime_name(name: str) -> RuntimeName:
    """The name of a runtime; an InputError if there is none of that name."""
    for known in RUNTIMES:
        if name == known:
            return known
    raise InputError("There is no such runtime.", got=name, expected=", ".join(RUNTIMES))


def _engine(runtime: RuntimeName, engine: VllmAddress | None, device: str | None) -> VllmAddress:
    """The server to be asked; only the runtime vllm has one."""
    if engine is None:
        raise InputError(
            "The runtime vllm asks a server, and none is named.",
            expected="the address of a vLLM server",
            fix="Name it: --engine http://127.0.0.1:8000 (docs/deployment.md).",
        )
    if runtime not in ("auto", "vllm") or device is not None:
        raise InputError(
            "A vLLM server takes neither another runtime nor a device.",
            got=f"--runtime {runtime}" if device is None else f"--device {device}",
            expected="--runtime vllm, no device",
            fix="Leave --engine out, or the other option.",
        )
    return engine


def _require_cpu(device: str | None) -> None:
    if device not in (None, "cpu"):
        raise InputError(
            "llama.cpp takes no torch device.",
            got=device,
            expected="cpu, or no device",
            fix="Leave --device out, or use --runtime torch.",
        )


def _prefers_llamacpp(device: str | None) -> bool:
    installed = importlib.util.find_spec("llama_cpp") is not None
    return installed and (device == "cpu" or (device is None and not NVIDIA_DRIVER.exists()))


def _open_torch(
    adapter: str | Path | None, *, base: str | None, device: str | None, dtype: str | None
) -> Engine:
    from icae.engine import load

    return load(adapter, base=base, device=device, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class _Files:
    """An adapter and its base model on disk."""

    adapter: Path
    info: AdapterInfo
    base: str
    folder: Path
    dtype: SlotDtype

    @classmethod
    def find(cls, adapter: str | Path | None, base: str | None, dtype: str | None) -> _Files:
        precision = _precision(dtype)
        path = adapter_folder(adapter)
        info = read_info(path)
        name = base or info.base_model
        return cls(adapter=path, info=info, base=name, folder=base_folder(name), dtype=precision)

    def require_settings(self) -> None:
        """Refuse a base whose settings are not those the adapter was trained with."""
        from transformers import AutoConfig

        from icae.model.base import computation_hash

        own = computation_hash(AutoConfig.from_pretrained(self.folder))
        require_base(self.info, base_model=self.base, base_hash=self.info.base_hash, settings=own)

    def checked_base(self) -> tuple[BaseFolder, str]:
        """The base model's files and the hash of its weights, which is the adapter's."""
        folder = BaseFolder.open(self.folder)
        weights = recorded_hash(str(self.folder), "weights.sha256") or folder.weight_hash()
        require_base(self.info, base_model=self.base, base_hash=weights)
        return folder, weights

    def reader(
        self, runtime: Runtime, width: int, device: str | None, key_values: KeyValueShape | None
    ) -> Reader:
        """What reads memories of hidden size `width`, or of keys and values, by a runtime."""
        from icae.model.fast_tokenizer import FastTokenizer

        tokenizer = FastTokenizer(self.folder)
        lead = lead_vectors(self.adapter, self.info.model)
        if lead is not None:
            runtime.lead_slots = KeyValueSlots(pairs_KY2HW=lead)
        found = tokenizer_hash(tokenizer)
        if found != self.info.tokenizer_hash:
            raise BaseModelError(
                "The tokenizer read without transformers is not the one of the adapter.",
                got=f"tokenizer {found[:12]} in {tokenizer.name_or_path}",
                expected=f"tokenizer {self.info.tokenizer_hash[:12]}",
                fix="Use --runtime torch.",
            )
        return Reader(
            runtime=runtime,
            info=self.info,
            tokenizer=tokenizer,
            provenance=Provenance(
                base_model=self.base,
                base_hash=self.info.base_hash,
                adapter=self.info.name,
                adapter_hash=adapter_hash(self.adapter),
                tokenizer_hash=found,
                layout=self.info.model.layout,
                hidden_size=width,
                key_values=key_values,
                slot_dtype="bfloat16" if key_values is None else KEY_VALUE_DTYPE,
            ),
            stop_ids=stop_tokens(end_of_answers(self.folder), tokenizer.eos_token_id),
            closing=closing_vectors(self.adapter, self.info.model),
            load_maker=lambda slot_dtype: _open_torch(
                self.adapter,
                base=self.base,
                device=device,
                dtype=slot_dtype if key_values is None else self.dtype,
            ),
        )


def open_llamacpp(
    adapter: str | Path | None = None, *, base: str | None = None, dtype: str | None = None
) -> Reader:
    """Open an adapter in llama.cpp; arguments and errors as for `open_reader`."""
    from icae.decode.llamacpp.context import LlamaModel, import_llama_cpp
    from icae.decode.llamacpp.forms import CacheEntry
    from icae.decode.llamacpp.runtime import LlamaCppRuntime
    from icae.decode.llamacpp.weights import ensure_gguf, gguf_path, order_path

    import_llama_cpp()  # fails at once where it is missing
    files = _Files.find(adapter, base, dtype)
    # A GGUF file is named by the hashes of what was read into it.
    gguf = gguf_path(files.info.base_hash, read_settings(files.folder), files.dtype)
    if files.base != files.info.base_model or not gguf.exists():
        files.require_settings()
        gguf = ensure_gguf(*files.checked_base(), files.dtype)
    model = LlamaModel(gguf)
    entry = None
    if files.info.model.memory == "key-values":
        if not order_path(gguf).exists():
            from icae.decode.cache_order import write_order  # needs torch, once

            write_order(files.base, model, order_path(gguf))
        entry = CacheEntry.read(order_path(gguf), files.folder)
    vectors = objective_vectors(files.adapter, files.info.model)
    runtime = LlamaCppRuntime(model, files.info.model, vectors, dtype=files.dtype, entry=entry)
    return files.reader(runtime, model.width, "cpu", None if entry is None else model.cache)


def open_vllm(
    server: VllmAddress,
    adapter: str | Path | None = None,
    *,
    base: str | None = None,
    dtype: str | None = None,
) -> Reader:
    """Open an adapter whose base model a vLLM server runs; as `open_reader`.

    The files of the base are needed here too, for the tokenizer and the input embeddings.
    """
    files = _Files.find(adapter, base, dtype)
    runtime = _connected(server, files)
    return files.reader(runtime, runtime.embeddings_VD.shape[1], None, None)


def connect_vllm(
    server: VllmAddress, adapter: str | Path | None, *, base: str, dtype: str | None = None
) -> VllmRuntime:
    """The decoder of an adapter in a vLLM server; as `open_vllm`."""
    return _connected(server, _Files.find(adapter, base, dtype))


def _connected(server: VllmAddress, files: _Files) -> VllmRuntime:
    from icae.decode.vllm.client import VllmClient
    from icae.decode.vllm.runtime import VllmRuntime

    require_slots(files.info)
    client = VllmClient(server)
    folder, _ = files.checked_base()
    hub_id = [DEFAULT_HUB_ID] if files.base == DEFAULT_BASE else []
    return VllmRuntime(
        client,
        folder,
        files.info.model,
        objective_vectors(files.adapter, files.info.model),
        bases=[files.base, *hub_id],
        dtype=files.dtype,
    )


def _precision(name: str | None) -> SlotDtype:
    if name in (None, "bfloat16"):
        return "bfloat16"
    if name == "float32":
        return "float32"
    raise InputError("The dtype is not known.", got=name, expected="bfloat16, float32")


def base_folder(base: str) -> Path:
    """Folder with the files of a base model, downloaded or converted if need be.

    Args:
        base: ``smollm2-135m-instruct``, a folder, or a Hugging Face hub id.

    Raises:
        BaseModelError: If there is none.
    """
    gguf = embedded_gguf() if base == DEFAULT_BASE else None
    if gguf is not None:
        folder = converted_folder(gguf)
        if not (folder / "complete").exists():
            from icae.model.base import resolve_base  # needs torch, once

            folder = Path(resolve_base(base))
        return folder
    return Path(base) if Path(base).is_dir() else base_snapshot(_hub_id(base))


def config_file(base: str) -> Path:
    """The ``config.json`` of a base model; of a hub model, nothing else is downloaded.

    Args:
        base: As for `base_folder`, or the file itself.

    Raises:
        BaseModelError: If there is none.
    """
    if Path(base).is_file():
        return Path(base)
    if Path(base).is_dir() or (base == DEFAULT_BASE and embedded_gguf() is not None):
        return base_folder(base) / "config.json"
    return base_snapshot(_hub_id(base), ["config.json"]) / "config.json"


def _hub_id(base: str) -> str:
    return DEFAULT_HUB_ID if base == DEFAULT_BASE else base
