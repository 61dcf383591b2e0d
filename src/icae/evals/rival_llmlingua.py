"""LLMLingua as installed: the frozen decoder itself scores which tokens of a text to drop.

Source: Jiang et al. 2023 (arXiv:2310.05736); the package `llmlingua`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers import DynamicCache

from icae.config.extras import import_extra
from icae.engine import Engine
from icae.evals.questions import Question
from icae.evals.respondents import TextSource, per_context
from icae.model.prompts import tokenize

SEGMENT = 200
"""Most tokens that are scored and thinned out at once, its own default."""


def llmlingua(engine: Engine) -> TextSource:
    """The text less the tokens that LLMLingua drops, as many left as the memory has slots.

    The question is not shown to it: like a memory, the shortened text serves any question.

    Args:
        engine: Its decoder scores the tokens; no adapter has a part in it.

    Raises:
        MissingDependencyError: If the package is not installed.
    """
    tokenizer, compressor = engine.tokenizer, _compressor(engine)

    def shortened(text: str, budget: int) -> str:
        length = len(tokenize(tokenizer, text))
        # Segments of one size: it leaves the end of a text untouched that is shorter than one.
        segment = -(-length // -(-length // SEGMENT))
        made = compressor.compress_prompt(
            [text],
            target_token=budget,
            iterative_size=segment,
            use_context_level_filter=False,
        )
        # It aims at the budget; the rest is cut off.
        ids = tokenize(tokenizer, str(made["compressed_prompt"]))[:budget]
        return str(tokenizer.decode(ids.tolist()))

    def make(asked: list[Question], budgets: list[int]) -> list[str]:
        pairs = zip(asked, budgets, strict=True)
        return [shortened(question.context, budget) for question, budget in pairs]

    return per_context(engine, make)


class _ScoringModel:
    """The decoder, with key-value caches as the pairs of tensors that LLMLingua slices."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    @torch.inference_mode()
    def __call__(
        self, input_ids: Any, *, attention_mask: Any, past_key_values: Any, use_cache: bool
    ) -> Any:
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(past_key_values or ()):
            cache.update(keys, values, layer)
        made = self._decoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=use_cache,
        )
        pairs = [(layer.keys, layer.values) for layer in made.past_key_values.layers]
        return SimpleNamespace(logits=made.logits.float(), past_key_values=pairs)


def _compressor(engine: Engine) -> Any:
    """A `PromptCompressor` on the loaded decoder; its own start would load another copy."""
    kind = import_extra("llmlingua", purpose="LLMLingua", extra="rivals").PromptCompressor
    made = kind.__new__(kind)
    made.use_llmlingua2 = False
    made.model = _ScoringModel(engine.runtime.model.decoder)
    made.tokenizer = engine.tokenizer
    made.oai_tokenizer = engine.tokenizer  # counts tokens for a price that nobody reads
    made.device = engine.runtime.model.device
    made.max_position_embeddings = engine.runtime.context_window
    made.cache_bos_num, made.prefix_bos_num, made.context_idxs = 10, 100, []
    return made
