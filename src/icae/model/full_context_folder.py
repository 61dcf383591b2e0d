"""The folder of a full-context reader: a standard PEFT adapter, `reader.json`, a card.

It holds no memory tokens and compresses nothing, so it is never taken for an adapter of
icae, nor the other way round.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.parsing import from_dict
from icae.errors import AdapterError
from icae.model.adapter import require_same_shapes
from icae.model.adapter_files import RECORD as ADAPTER_RECORD
from icae.model.card import list_figures, list_sources
from icae.model.folder_record import RecordFormat, TrainedInfo
from icae.model.full_context import FullContextModel

RECORD = "reader.json"
FORMAT = RecordFormat(
    name="icae-full-context-reader", version=1, file=RECORD, what="a full-context reader"
)
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class ReaderInfo(TrainedInfo):
    """What `reader.json` records.

    Attributes:
        lora_rank: Rank of the LoRA.
        lora_alpha: Scale numerator of the LoRA.
        lora_targets: What it adapts; see `ModelConfig`.
    """

    lora_rank: int
    lora_alpha: float
    lora_targets: str


def save_reader(model: FullContextModel, info: ReaderInfo, folder: str | Path) -> Path:
    """Write the folder of a full-context reader.

    Args:
        model: The trained reader.
        info: What to record.
        folder: Target folder; created, files of the same names are replaced.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.lora.save_pretrained(str(folder), save_embedding_layers=False)
    FORMAT.write(folder, info)
    (folder / "README.md").write_text(_card(info), encoding="utf-8")
    return folder


def load_reader(
    folder: str | Path, decoder: PreTrainedModel, *, base_model: str, base_hash: str
) -> tuple[FullContextModel, ReaderInfo]:
    """Put a full-context reader on a base model.

    Args:
        folder: Its folder.
        decoder: The loaded base model; frozen, not modified.
        base_model: Its name, for the error message.
        base_hash: Its weight hash.

    Raises:
        AdapterError: If the folder is an adapter of icae or something else, if the base is
            another one, or if files are missing or do not fit.
    """
    info = read_reader_info(folder)
    if info.base_hash != base_hash:
        raise AdapterError(
            "The full-context reader was trained on another base model.",
            got=f"base {base_model} (weights {base_hash[:12]})",
            expected=f"base {info.base_model} (weights {info.base_hash[:12]})",
            fix=f"Train one for {base_model} (objective.reader: full-context).",
        )
    settings = {"lora_rank": info.lora_rank, "lora_alpha": info.lora_alpha}
    config = from_dict(
        ModelConfig, {**settings, "lora_targets": info.lora_targets}, where=str(folder)
    )
    model = FullContextModel(decoder, config)
    try:
        weights = load_file(str(Path(folder) / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"The reader {folder} is damaged.", got=str(error)) from error
    expected = dict(get_peft_model_state_dict(model.lora, save_embedding_layers=False))
    require_same_shapes(Path(folder), weights, expected)
    set_peft_model_state_dict(model.lora, weights)
    return model.eval(), info


def read_reader_info(folder: str | Path) -> ReaderInfo:
    """Read `reader.json`.

    Raises:
        AdapterError: If the folder is not that of a full-context reader.
    """
    if not (Path(folder) / RECORD).is_file() and (Path(folder) / ADAPTER_RECORD).is_file():
        raise AdapterError(
            f"{folder} is an adapter of icae, not a reader of the full context.",
            got=ADAPTER_RECORD,
            expected=f"a folder with {RECORD} and {WEIGHTS}",
            fix="Give the adapter with --adapter; train the reader with objective.reader: "
            "full-context.",
        )
    return FORMAT.read(
        ReaderInfo,
        Path(folder),
        missing=lambda error: AdapterError(
            f"{folder} is not the folder of a full-context reader.",
            got=str(error),
            expected=f"a folder with {RECORD} and {WEIGHTS}",
            fix="Give the folder that `icae finetune` wrote with objective.reader: full-context.",
        ),
    )


def reader_hash(folder: str | Path) -> str:
    """SHA-256 over the weights of a full-context reader and the shape of its LoRA.

    Raises:
        AdapterError: If the folder cannot be read.
    """
    info = read_reader_info(folder)
    shape = [info.lora_rank, info.lora_alpha, info.lora_targets]
    digest = hashlib.sha256(json.dumps(shape).encode())
    try:
        digest.update((Path(folder) / WEIGHTS).read_bytes())
    except OSError as error:
        raise AdapterError(f"The reader {folder} is damaged.", got=str(error)) from error
    return digest.hexdigest()


def _card(info: ReaderInfo) -> str:
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: peft",
        f"base_model: {info.base_model}",
        "tags: [lora, question-answering, upper-bound]",
        "---",
        f"# {info.name}",
        "",
        f"A LoRA for `{info.base_model}` that answers with the **whole context in the prompt**: "
        "it compresses nothing and is no adapter of icae. It is the upper bound that answers "
        "from memory are compared with: `icae eval qa --upper-bound`.",
        "",
        str(info.recipe.get("description", "")).strip(),
        "",
        "| setting | value |",
        "|---|---|",
        f"| LoRA rank, alpha | {info.lora_rank}, {info.lora_alpha:g} |",
        f"| LoRA targets | {info.lora_targets} |",
        f"| base weights (sha256) | `{info.base_hash[:16]}` |",
        f"| tokenizer (sha256) | `{info.tokenizer_hash[:16]}` |",
        f"| code | `{info.commit or 'unknown'}` |",
        "",
        "## Measured",
        "",
        *list_figures(info.metrics),
        "",
        "## Training data",
        "",
        *list_sources(info.data),
        "",
    ]
    return "\n".join(lines)
