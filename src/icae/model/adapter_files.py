"""What the folder of a trained model holds, read without torch: its record and hash.

Three kinds of folder have one form: weights of a standard PEFT LoRA, the model's own vectors, a
JSON record and a model card. Each is refused where another is wanted.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from icae.config import ModelConfig
from icae.config.parsing import from_dict, to_dict
from icae.config.types import Method
from icae.errors import AdapterError, ConfigError, IncompatibleMemoryError
from icae.model.hub import adapter_snapshot, is_hub_id

VERSION = 1
"""Version of every record."""

ADAPTERS = Path(str(resources.files("icae") / "adapters"))
"""Folder of the adapters in the package."""

DEFAULT_ADAPTER = "smollm2-135m-kv"
"""Name of the one among them that is used where none is named; all others read memories."""


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """A kind of trained folder.

    Attributes:
        what: What such a folder is, for messages.
        use: Where it is used, for messages.
        methods: What it may hold; see `ObjectiveConfig.reader`.
        format: What the field ``format`` of its record says.
        record: File of the record.
        lora: Folder of the LoRA in it.
        vectors: File of the weights beside the LoRA, or None if there are none.
    """

    what: str
    use: str
    methods: tuple[Method, ...]
    format: str
    record: str
    lora: str = "."
    vectors: str | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        """Its weight files: the LoRA's, then the vectors."""
        lora = f"{self.lora}/adapter_model.safetensors".removeprefix("./")
        return (lora,) if self.vectors is None else (lora, self.vectors)


ADAPTER = FolderKind(
    what="an adapter folder",
    use="--adapter",
    methods=("memory",),
    format="icae-adapter",
    record="icae.json",
    lora="lora",
    vectors="icae.safetensors",
)
FULL_CONTEXT = FolderKind(
    what="the folder of a full-context reader",
    use="`icae eval qa --upper-bound`",
    methods=("full-context",),
    format="icae-full-context-reader",
    record="reader.json",
)
RIVAL = FolderKind(
    what="the folder of a trained rival",
    use="`icae eval rivals --trained`",
    methods=("gist", "autocompressor"),
    format="icae-rival",
    record="rival.json",
    vectors="rival.safetensors",
)
KINDS: Mapping[Method, FolderKind] = {
    method: kind for kind in (ADAPTER, FULL_CONTEXT, RIVAL) for method in kind.methods
}
"""What each method of training is kept in."""

TITLES: Mapping[Method, str] = {"gist": "GIST", "autocompressor": "AutoCompressor"}
"""Rival -> its name in tables."""


@dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """What the record of a trained model says.

    Attributes:
        name: Name of the model.
        base_model: Base model that it was trained on.
        base_hash: Weight hash of that base (`icae.model.base.weight_hash`).
        tokenizer_hash: Hash of its tokenizer.
        base_settings: `icae.model.base.computation_hash` of it; "" where it was not recorded.
        model: Architecture.
        method: What was trained; see `ObjectiveConfig.reader`.
        ratios: Compression ratios it was trained at.
        recipe: The recipe of the run, as plain data.
        data: Sources of the training data and their sizes.
        commit: Commit of the code that trained it, or "".
        metrics: Measured figures by name.
    """

    name: str
    base_model: str
    base_hash: str
    tokenizer_hash: str
    model: ModelConfig
    method: Method = "memory"
    ratios: tuple[float, ...] = (4.0,)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    base_settings: str = ""
    commit: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def trained_spans(self) -> int | None:
        """Most spans of one text that it was trained on; None where its recipe does not say."""
        data = self.recipe.get("data", {})
        lengths = [*data.get("context_lengths", ()), data.get("triplet_context") or 0]
        return -(-max(map(int, lengths)) // self.model.span_length) or None


class Maker(Protocol):
    """What a memory says of the adapter that made it; see `icae.memory.Provenance`."""

    @property
    def adapter(self) -> str: ...  # noqa: D102
    @property
    def adapter_hash(self) -> str: ...  # noqa: D102


def adapter_folder(adapter: str | Path | None, maker: Maker | None = None) -> Path:
    """The folder of an adapter: a folder, the name of one in the package or an id of the Hub.

    Of None it is the one in the package that made a memory, and without a memory the default one.

    Raises:
        IncompatibleMemoryError: If no folder is given and none in the package made it.
        AdapterError: If the Hub cannot give it.
    """
    if adapter is not None:
        return _named_folder(str(adapter))
    shipped = shipped_adapters()
    if maker is None:
        return shipped[0]
    for folder in shipped:
        if _shipped_hash(folder) == maker.adapter_hash:
            return folder
    raise IncompatibleMemoryError(
        "The memory was made by an adapter that is not in the package.",
        got=f"adapter {maker.adapter} ({maker.adapter_hash})",
        expected=" or ".join(f"{read_info(f).name} ({_shipped_hash(f)})" for f in shipped),
        fix="Name the folder of its adapter with --adapter, or compress the document again: "
        "`icae upgrade` does from the text that the memory keeps.",
    )


def _named_folder(adapter: str) -> Path:
    """A folder, an adapter in the package by its name, or one of the Hub by its id."""
    if is_hub_id(adapter):
        return adapter_snapshot(adapter)
    shipped = ADAPTERS / adapter
    given = Path(adapter)
    return shipped if not given.exists() and (shipped / ADAPTER.record).is_file() else given


def shipped_adapters() -> list[Path]:
    """The adapters in the package, the default one first."""
    folders = sorted(path.parent for path in ADAPTERS.glob(f"*/{ADAPTER.record}"))
    return sorted(folders, key=lambda folder: folder.name != DEFAULT_ADAPTER)


@functools.cache
def _shipped_hash(folder: Path) -> str:
    return adapter_hash(folder)


def write_info(info: AdapterInfo, folder: Path) -> None:
    """Write the record of a folder; one that is there is replaced."""
    kind = KINDS[info.method]
    record = {"format": kind.format, "version": VERSION, **to_dict(info)}
    if len(kind.methods) == 1:
        del record["method"]
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / kind.record).write_text(text + "\n", encoding="utf-8")


def read_info(folder: str | Path, kind: FolderKind = ADAPTER) -> AdapterInfo:
    """Read the record of a trained folder of a kind, strictly.

    Raises:
        AdapterError: If it is something else, of another version, damaged, or names old settings.
    """
    folder = Path(folder)
    record = _read_record(folder, kind)
    # How a residual head started does not matter once it is trained.
    model = {k: v for k, v in record["model"].items() if k != "residual_scale"}
    try:
        info = from_dict(AdapterInfo, {**record, "model": model}, where=str(folder / kind.record))
    except ConfigError as error:
        raise AdapterError(
            error.message, got=error.got, expected=error.expected, fix=error.fix
        ) from error
    if info.method not in kind.methods:
        raise AdapterError(
            f"{folder} is not {kind.what}.", got=info.method, expected=" or ".join(kind.methods)
        )
    return info


def _read_record(folder: Path, kind: FolderKind) -> dict[str, Any]:
    """The record as it was written, in the form of now, checked as far as kind and version."""
    path = folder / kind.record
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdapterError(
            f"{folder} is not {kind.what}.",
            got=str(error),
            expected=f"a folder with {', '.join((kind.record, *kind.weights))}",
            fix=_where_from(folder, kind),
        ) from error
    except ValueError as error:
        raise AdapterError(f"{path} is damaged.", got=str(error), expected="JSON") from error
    if not isinstance(record, dict) or record.pop("format", None) != kind.format:
        raise AdapterError(
            f"{path} is not the record of {kind.what}.", expected=f'"format": "{kind.format}"'
        )
    version = record.pop("version", None)
    if version != VERSION:
        raise AdapterError(
            f"{path} has another format version.", got=str(version), expected=str(VERSION)
        )
    if kind is FULL_CONTEXT and "model" not in record:  # written before all kinds were alike
        names = ("lora_rank", "lora_alpha", "lora_targets")
        record["model"] = {name: record.pop(name) for name in names if name in record}
    if not isinstance(record.get("model"), dict):
        raise AdapterError(f"{path}: a key is missing.", got="nothing", expected="model")
    return {"method": kind.methods[0], **record}


def _where_from(folder: Path, wanted: FolderKind) -> str:
    for kind in (ADAPTER, FULL_CONTEXT, RIVAL):
        if (folder / kind.record).is_file():
            return f"This is {kind.what}: it goes to {kind.use}."
    if wanted is ADAPTER:
        return "Give the folder that `icae pretrain` wrote."
    reader = " or ".join(wanted.methods)
    return f"Give the folder that a run with objective.reader: {reader} wrote."


def require_slots(info: AdapterInfo) -> None:
    """Refuse an adapter whose memories are not input embeddings: a server takes no others.

    Raises:
        AdapterError: If it has another form of memory.
    """
    if info.model.memory != "embeddings":
        raise AdapterError(
            f"The memories of {info.name} cannot be sent to a vLLM server.",
            got=f"model.memory: {info.model.memory}",
            expected="model.memory: embeddings",
            fix="Use --runtime torch or llamacpp, or an adapter whose memories are embeddings.",
        )


def adapter_hash(folder: str | Path, kind: FolderKind = ADAPTER) -> str:
    """SHA-256 over a folder's weights and architecture; what a memory is keyed by.

    The architecture counts as it was written, so that settings added or removed later leave old
    adapters and their memories what they were. An AdapterError if it cannot be read.
    """
    folder = Path(folder)
    read_info(folder, kind)
    architecture = _read_record(folder, kind)["model"]
    digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    for part in kind.weights:
        try:
            digest.update((folder / part).read_bytes())
        except OSError as error:
            raise AdapterError(f"The weights in {folder} are damaged.", got=str(error)) from error
    return digest.hexdigest()


def require_base(info: AdapterInfo, *, base_model: str, base_hash: str, settings: str = "") -> None:
    """Refuse a base model that a trained model was not trained on, with an AdapterError.

    It is told by its name, its weight hash and, where it is known, its `computation_hash`.
    """
    if settings and info.base_settings not in ("", settings):
        raise AdapterError(
            "The base model has other settings than the adapter was trained with.",
            got=f"base {base_model} (settings {settings[:12]})",
            expected=f"base {info.base_model} (settings {info.base_settings[:12]})",
            fix="Use the config.json of the base as it was: rope, scaling, norms, windows.",
        )
    if info.base_hash != base_hash:
        raise AdapterError(
            "The adapter was trained on another base model.",
            got=f"base {base_model} (weights {base_hash[:12]})",
            expected=f"base {info.base_model} (weights {info.base_hash[:12]})",
            fix=f"Load {info.base_model}, or train an adapter for {base_model}.",
        )
