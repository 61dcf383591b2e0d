"""The adapter folder: PEFT LoRA, `icae.safetensors`, `icae.json` and a model card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.errors import AdapterError, ConfigError
from icae.model.card import model_card
from icae.model.icae import IcaeModel
from icae.parsing import from_dict, to_dict

FORMAT = "icae-adapter"
RECORD = "icae.json"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """What `icae.json` records.

    Attributes:
        name: Name of the adapter.
        base_model: Base model name the adapter was trained on.
        base_hash: Weight hash of that base (`icae.model.base.weight_hash`).
        tokenizer_hash: Hash of its tokenizer.
        model: Architecture.
        ratios: Compression ratios it was trained at.
        recipe: The recipe of the run, as plain data.
        data: Sources of the training tokens and their sizes.
        commit: Commit of the code that trained it, or "".
        metrics: Measured figures by name.
    """

    name: str
    base_model: str
    base_hash: str
    tokenizer_hash: str
    model: ModelConfig
    ratios: tuple[float, ...] = (4.0,)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


def save_adapter(model: IcaeModel, info: AdapterInfo, folder: str | Path) -> Path:
    """Write an adapter folder.

    Args:
        model: The trained model.
        info: What to record.
        folder: Target folder; created, files of the same names are replaced.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.lora.save_pretrained(str(folder / "lora"), save_embedding_layers=False)
    (folder / "lora" / "README.md").unlink(missing_ok=True)
    tensors = {f"tokens.{k}": v for k, v in model.tokens.state_dict().items()}
    tensors |= {f"head.{k}": v for k, v in model.head.state_dict().items()}
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
        str(folder / "icae.safetensors"),
    )
    record = {"format": FORMAT, "version": VERSION, **to_dict(info)}
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(to_dict(info)), encoding="utf-8")
    return folder


def read_info(folder: str | Path) -> AdapterInfo:
    """Read `icae.json` of an adapter folder.

    Raises:
        AdapterError: If the folder is not an adapter, or of another version.
    """
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdapterError(
            f"{folder} is not an adapter folder.",
            got=str(error),
            expected="a folder with icae.json, icae.safetensors and lora/",
            fix=_where_from(Path(folder)),
        ) from error
    except ValueError as error:
        raise AdapterError(f"{path} is damaged.", got=str(error), expected="JSON") from error
    if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
        raise AdapterError(f"{path} is not an icae adapter.", expected=f'"format": "{FORMAT}"')
    version = record.pop("version", None)
    if version != VERSION:
        raise AdapterError(
            f"{path} has another format version.", got=str(version), expected=str(VERSION)
        )
    try:
        return from_dict(AdapterInfo, record, where=str(path))
    except ConfigError as error:
        raise AdapterError(
            error.message, got=error.got, expected=error.expected, fix=error.fix
        ) from error


def _where_from(folder: Path) -> str:
    if (folder / "reader.json").is_file():
        return "This is a reader of the full context: it goes to `icae eval qa --upper-bound`."
    return "Give the folder that `icae pretrain` wrote."


def load_adapter(
    folder: str | Path, decoder: PreTrainedModel, *, base_model: str, base_hash: str
) -> tuple[IcaeModel, AdapterInfo]:
    """Put an adapter on a base model.

    Args:
        folder: Adapter folder.
        decoder: The loaded base model; frozen, not modified.
        base_model: Its name, for the error message.
        base_hash: Its weight hash.

    Raises:
        AdapterError: If the base is another one, or files are missing or do not fit.
    """
    info = read_info(folder)
    if info.base_hash != base_hash:
        raise AdapterError(
            "The adapter was trained on another base model.",
            got=f"base {base_model} (weights {base_hash[:12]})",
            expected=f"base {info.base_model} (weights {info.base_hash[:12]})",
            fix=f"Load {info.base_model}, or train an adapter for {base_model}.",
        )
    model = IcaeModel(decoder, info.model)
    load_weights(model, folder)
    return model, info


def load_weights(
    model: IcaeModel,
    folder: str | Path,
    *,
    adapt: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = dict,
) -> None:
    """Load an adapter's weights into a model of the same architecture, strictly.

    Args:
        model: The model.
        folder: Adapter folder.
        adapt: Changes the weights outside the LoRA (by name) before they are checked.

    Raises:
        AdapterError: If a file is missing or damaged, or a tensor is missing, unknown or
            of another shape.
    """
    folder = Path(folder)
    try:
        lora = load_file(str(folder / "lora" / "adapter_model.safetensors"))
        own = adapt(load_file(str(folder / "icae.safetensors")))
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"The adapter {folder} is damaged.", got=str(error)) from error
    expected = dict(get_peft_model_state_dict(model.lora, save_embedding_layers=False))
    require_same_shapes(folder, lora, expected)
    tokens = {k.removeprefix("tokens."): v for k, v in own.items() if k.startswith("tokens.")}
    head = {k.removeprefix("head."): v for k, v in own.items() if k.startswith("head.")}
    require_same_shapes(folder, tokens, model.tokens.state_dict())
    require_same_shapes(folder, head, model.head.state_dict())
    set_peft_model_state_dict(model.lora, lora)
    model.tokens.load_state_dict(tokens)
    model.head.load_state_dict(head)


def require_same_shapes(
    folder: Path, got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Refuse weights that are not, name by name, those of the model.

    Raises:
        AdapterError: If a tensor is missing, unknown or of another shape.
    """
    shapes_got = {k: tuple(v.shape) for k, v in got.items()}
    shapes_expected = {k: tuple(v.shape) for k, v in expected.items()}
    if shapes_got == shapes_expected:
        return
    names = sorted(set(shapes_got.items()) ^ set(shapes_expected.items()))
    raise AdapterError(
        f"The weights in {folder} do not fit the model.",
        got="; ".join(f"{n} {shapes_got.get(n)}" for n, _ in names[:3]),
        expected="; ".join(f"{n} {shapes_expected.get(n)}" for n, _ in names[:3]),
        fix="Use the same base, rank, slot head and memory embedding as in training.",
    )


def adapter_hash(folder: str | Path) -> str:
    """SHA-256 over the adapter's weights and architecture; what a memory is keyed by.

    The architecture counts as it was written, so that settings added later, at their
    defaults, leave old adapters and their memories what they were.
    """
    folder = Path(folder)
    read_info(folder)
    architecture = json.loads((folder / RECORD).read_text(encoding="utf-8"))["model"]
    digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    for part in ("lora/adapter_model.safetensors", "icae.safetensors"):
        try:
            digest.update((folder / part).read_bytes())
        except OSError as error:
            raise AdapterError(f"The adapter {folder} is damaged.", got=str(error)) from error
    return digest.hexdigest()
