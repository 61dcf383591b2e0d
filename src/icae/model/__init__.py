"""The model: encoder, frozen decoder, positions, slots, adapter."""

from icae.model.adapter import (
    AdapterInfo,
    adapter_hash,
    load_adapter,
    load_weights,
    read_info,
    save_adapter,
)
from icae.model.base import (
    DEFAULT_BASE,
    base_hash,
    load_decoder,
    load_tokenizer,
    tokenizer_hash,
    weight_hash,
)
from icae.model.icae import IcaeModel, Sample
from icae.model.plain_decoder import PlainRow, plain_logits
from icae.model.prompts import render_answer, render_prompt, tokenize, tokenize_with_offsets
from icae.model.scoring import TaskScore, score_task, token_kl

__all__ = [
    "DEFAULT_BASE",
    "AdapterInfo",
    "IcaeModel",
    "PlainRow",
    "Sample",
    "TaskScore",
    "adapter_hash",
    "base_hash",
    "load_adapter",
    "load_decoder",
    "load_tokenizer",
    "load_weights",
    "plain_logits",
    "read_info",
    "render_answer",
    "render_prompt",
    "save_adapter",
    "score_task",
    "token_kl",
    "tokenize",
    "tokenize_with_offsets",
    "tokenizer_hash",
    "weight_hash",
]
