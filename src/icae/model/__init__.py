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
from icae.model.full_context import FullContextModel
from icae.model.full_context_folder import (
    ReaderInfo,
    load_reader,
    read_reader_info,
    reader_hash,
    save_reader,
)
from icae.model.icae import IcaeModel, Sample
from icae.model.plain_decoder import PlainRow, plain_logits
from icae.model.prompts import (
    render_answer,
    render_full_prompt,
    render_prompt,
    tokenize,
    tokenize_with_offsets,
)
from icae.model.scoring import TaskScore, score_task, token_kl

__all__ = [
    "DEFAULT_BASE",
    "AdapterInfo",
    "FullContextModel",
    "IcaeModel",
    "PlainRow",
    "ReaderInfo",
    "Sample",
    "TaskScore",
    "adapter_hash",
    "base_hash",
    "load_adapter",
    "load_decoder",
    "load_reader",
    "load_tokenizer",
    "load_weights",
    "plain_logits",
    "read_info",
    "read_reader_info",
    "reader_hash",
    "render_answer",
    "render_full_prompt",
    "render_prompt",
    "save_adapter",
    "save_reader",
    "score_task",
    "token_kl",
    "tokenize",
    "tokenize_with_offsets",
    "tokenizer_hash",
    "weight_hash",
]
