"""The model: encoder, frozen decoder, positions, slots, adapter.

Names are loaded on first use, so that the modules of this package that need no torch
(files of base and adapter, positions, prompts) can be imported without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icae.model.adapter import load_adapter, load_weights, save_adapter
    from icae.model.adapter_files import AdapterInfo, adapter_hash, read_info
    from icae.model.autocompressor import AutoCompressor
    from icae.model.base import base_hash, load_decoder, load_tokenizer, weight_hash
    from icae.model.base_files import DEFAULT_BASE, tokenizer_hash
    from icae.model.full_context import FullContextModel
    from icae.model.full_context_folder import (
        ReaderInfo,
        load_reader,
        read_reader_info,
        reader_hash,
        save_reader,
    )
    from icae.model.gist import GistMemory, GistModel
    from icae.model.icae import IcaeModel, Sample
    from icae.model.plain_decoder import PlainRow, plain_logits
    from icae.model.prompts import (
        render_answer,
        render_full_prompt,
        render_prompt,
        tokenize,
        tokenize_with_offsets,
    )
    from icae.model.rival_folder import (
        RIVAL_MODELS,
        RivalInfo,
        RivalModel,
        load_rival,
        load_rival_weights,
        read_rival_info,
        rival_hash,
        save_rival,
    )
    from icae.model.scoring import TaskScore, score_task, token_kl

__all__ = [
    "DEFAULT_BASE",
    "RIVAL_MODELS",
    "AdapterInfo",
    "AutoCompressor",
    "FullContextModel",
    "GistMemory",
    "GistModel",
    "IcaeModel",
    "PlainRow",
    "ReaderInfo",
    "RivalInfo",
    "RivalModel",
    "Sample",
    "TaskScore",
    "adapter_hash",
    "base_hash",
    "load_adapter",
    "load_decoder",
    "load_reader",
    "load_rival",
    "load_rival_weights",
    "load_tokenizer",
    "load_weights",
    "plain_logits",
    "read_info",
    "read_reader_info",
    "read_rival_info",
    "reader_hash",
    "render_answer",
    "render_full_prompt",
    "render_prompt",
    "rival_hash",
    "save_adapter",
    "save_reader",
    "save_rival",
    "score_task",
    "token_kl",
    "tokenize",
    "tokenize_with_offsets",
    "tokenizer_hash",
    "weight_hash",
]

_NAMES = {
    "adapter": ("load_adapter", "load_weights", "save_adapter"),
    "adapter_files": ("AdapterInfo", "adapter_hash", "read_info"),
    "autocompressor": ("AutoCompressor",),
    "base": ("base_hash", "load_decoder", "load_tokenizer", "weight_hash"),
    "base_files": ("DEFAULT_BASE", "tokenizer_hash"),
    "full_context": ("FullContextModel",),
    "full_context_folder": (
        "ReaderInfo",
        "load_reader",
        "read_reader_info",
        "reader_hash",
        "save_reader",
    ),
    "gist": ("GistMemory", "GistModel"),
    "icae": ("IcaeModel", "Sample"),
    "plain_decoder": ("PlainRow", "plain_logits"),
    "prompts": (
        "render_answer",
        "render_full_prompt",
        "render_prompt",
        "tokenize",
        "tokenize_with_offsets",
    ),
    "rival_folder": (
        "RIVAL_MODELS",
        "RivalInfo",
        "RivalModel",
        "load_rival",
        "load_rival_weights",
        "read_rival_info",
        "rival_hash",
        "save_rival",
    ),
    "scoring": ("TaskScore", "score_task", "token_kl"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
