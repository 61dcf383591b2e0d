"""Weights of the public ICAE code, read into an adapter and written from one.

A published file holds the LoRA of the encoder (its alpha is not in it) and one table of vectors:
memory tokens, then those of [AE], [LM] and [FT]. What surrounds them is a matter of the code that
made them, and here of the adapter's config:

- a text is cut into as few spans of equal length as a segment allows, each of always K slots;
- a question stands behind ``<s>[INST] memory [FT]`` and before ``[/INST]``; an answer ends with
  ``</s>`` (`generation` 2). The first generation has no template, ends the prompt with a second
  [FT], and answers with token 1.

Source: getao/icae on GitHub, commit 469a468 (icae_v2); its code is not used here.

Shape legend: K memory tokens, D hidden size.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.asking import AskingConfig, SpanConfig
from icae.errors import AdapterError
from icae.model.adapter import require_shapes
from icae.model.icae import IcaeModel
from icae.model.prompts import Tokenizer, tokenize

Generation = Literal[1, 2]

TABLE = "memory_token_embed.weight"
OBJECTIVES = 3
"""Vectors behind those of the memory tokens: [AE], [LM], [FT]."""


@dataclass(frozen=True, kw_only=True)
class OfficialForm:
    """What a published file does not say of itself.

    Attributes:
        generation: Of the public code that made it.
        alpha: Numerator of the LoRA's scale.
        segment: Most tokens of a span.
    """

    generation: Generation = 2
    alpha: float = 32.0
    segment: int = 512


def read_official(file: Path) -> dict[str, Tensor]:
    """The tensors of a published file, safetensors or a pickle of tensors; else an AdapterError.

    Frozen weights, which the first generation stores as the number 0.0, are left out.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise AdapterError(
            f"{file} cannot be read.",
            got=(str(error).strip() or type(error).__name__).splitlines()[0],
            expected="a .safetensors file, or a pickle of tensors",
        ) from error
    if not isinstance(found, Mapping):
        raise AdapterError(f"{file} holds no weights.", got=type(found).__name__)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def from_official(
    tensors: Mapping[str, Tensor],
    decoder: PreTrainedModel,
    tokenizer: Tokenizer,
    form: OfficialForm,
) -> IcaeModel:
    """A model with the weights of a published file, every one of them used.

    An AdapterError if a tensor is missing, unknown or of another shape than on this base.
    """
    ranks = {len(t) for name, t in tensors.items() if name.endswith("lora_A.default.weight")}
    table = tensors.get(TABLE)
    if table is None or table.ndim != 2 or len(table) <= OBJECTIVES or len(ranks) != 1:
        raise AdapterError(
            "The file is none of the public ICAE code.",
            got=f"{len(tensors)} tensors, LoRA ranks {sorted(ranks)}",
            expected=f"{TABLE} [K + {OBJECTIVES}, hidden size], and a LoRA of one rank",
        )
    config = official_config(tokenizer, form, slots=len(table) - OBJECTIVES, rank=ranks.pop())
    model = IcaeModel(decoder, config)
    wanted = _weights_of(model)
    require_shapes(
        tensors,
        wanted,
        message="The weights are not those of the public ICAE code on this base model.",
        fix="Give the base model that the file was trained on, with --base.",
    )
    with torch.no_grad():
        for name, parameter in wanted.items():
            if name != TABLE:
                parameter.copy_(tensors[name])
        slots = len(table) - OBJECTIVES
        model.tokens.memory_ND.copy_(table[:slots])
        model.tokens.objective_ND.copy_(table[slots:])
    return model.eval()


def to_official(model: IcaeModel, tokenizer: Tokenizer, file: Path) -> None:
    """Write an adapter in the form of the published files.

    An AdapterError if it has settings that the public code has not.
    """
    config = model.config
    form = OfficialForm(
        generation=2 if config.asking.template == "own" and config.asking.behind else 1,
        alpha=config.lora_alpha,
        segment=config.span_length,
    )
    slots, rank = config.spans.slots or config.max_slots, config.lora_rank
    expected = asdict(official_config(tokenizer, form, slots=slots, rank=rank))
    differing = [k for k, v in asdict(config).items() if v != expected[k]]
    if differing:
        raise AdapterError(
            "The public ICAE code cannot read this adapter.",
            got="; ".join(f"model.{k}: {getattr(config, k)}" for k in differing),
            expected="; ".join(f"model.{k}: {expected[k]}" for k in differing),
            fix="Only adapters with the settings of the public code have its form, "
            "such as those of `icae import official`.",
        )
    save_file({name: t.detach().cpu().contiguous() for name, t in _weights_of(model).items()}, file)


def official_config(
    tokenizer: Tokenizer, form: OfficialForm, *, slots: int, rank: int
) -> ModelConfig:
    """The architecture of the public code, with K slots a span."""
    begin, end = (
        (i,) if i is not None else () for i in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    )
    if form.generation == 1:
        asking = AskingConfig(template="own", begin=begin, closing="objective", stop=(1,))
    else:
        asking = AskingConfig(
            template="own",
            begin=begin,
            before=(*begin, *map(int, tokenize(tokenizer, "[INST]"))),
            behind=tuple(map(int, tokenize(tokenizer, "[/INST]"))),
            stop=end,
            written_end=end,
        )
    return ModelConfig(
        span_length=form.segment,
        layout="default",
        slot_head="plain",
        memory_embedding="per-slot",
        max_slots=slots,
        lora_rank=rank,
        lora_alpha=form.alpha,
        spans=SpanConfig(cut="equal", slots=slots),
        asking=asking,
    )


def _weights_of(model: IcaeModel) -> dict[str, Tensor]:
    """The trained weights of a model by their published names; the table is a copy."""
    lora = {
        f"icae.{name.removeprefix('lora.')}": parameter
        for name, parameter in model.trainable().items()
        if name.startswith("lora.")
    }
    return {**lora, TABLE: torch.cat([model.tokens.memory_ND, model.tokens.objective_ND])}
