"""The model: the paper, an equation a file.

Names are loaded on first use, so that the modules of this package that need no torch
(files of base and adapter, positions, objectives, prompts) can be imported without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icae.model.adapter import load_trained as load_trained
    from icae.model.adapter import load_weights as load_weights
    from icae.model.adapter import save_adapter as save_adapter
    from icae.model.adapter_files import AdapterInfo as AdapterInfo
    from icae.model.adapter_files import adapter_hash as adapter_hash
    from icae.model.adapter_files import read_info as read_info
    from icae.model.autocompressor import AutoCompressor as AutoCompressor
    from icae.model.base import load_decoder as load_decoder
    from icae.model.base import load_tokenizer as load_tokenizer
    from icae.model.base import weight_hash as weight_hash
    from icae.model.base_files import tokenizer_hash as tokenizer_hash
    from icae.model.decoder import PlainRow as PlainRow
    from icae.model.decoder import plain_logits as plain_logits
    from icae.model.full_context import FullContextModel as FullContextModel
    from icae.model.gist import GistMemory as GistMemory
    from icae.model.gist import GistModel as GistModel
    from icae.model.icae import IcaeModel as IcaeModel
    from icae.model.losses import TaskScore as TaskScore
    from icae.model.losses import score_task as score_task
    from icae.model.losses import token_kl as token_kl
    from icae.model.objectives import Sample as Sample
    from icae.model.prompts import render_answer as render_answer
    from icae.model.prompts import render_full_prompt as render_full_prompt
    from icae.model.prompts import render_prompt as render_prompt
    from icae.model.prompts import tokenize as tokenize
    from icae.model.prompts import tokenize_with_offsets as tokenize_with_offsets

_NAMES = {
    "adapter": ("load_trained", "load_weights", "save_adapter"),
    "adapter_files": ("AdapterInfo", "adapter_hash", "read_info"),
    "autocompressor": ("AutoCompressor",),
    "base": ("load_decoder", "load_tokenizer", "weight_hash"),
    "base_files": ("tokenizer_hash",),
    "decoder": ("PlainRow", "plain_logits"),
    "full_context": ("FullContextModel",),
    "gist": ("GistMemory", "GistModel"),
    "icae": ("IcaeModel",),
    "losses": ("TaskScore", "score_task", "token_kl"),
    "objectives": ("Sample",),
    "prompts": (
        "render_answer",
        "render_full_prompt",
        "render_prompt",
        "tokenize",
        "tokenize_with_offsets",
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a name on first use."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
