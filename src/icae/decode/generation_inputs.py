"""A memory and a question as what `generate` of transformers takes."""

from __future__ import annotations

import copy
from typing import Any

import torch

from icae.config.types import TokenIds
from icae.decode.prefix import Prefix, input_positions
from icae.decode.reader import Reader
from icae.decode.torch import TorchRuntime
from icae.decode.torch_forms import KeyValueForm
from icae.errors import InputError
from icae.memory import Memory


def generation_inputs(reader: Reader, memory: Memory, question: str) -> dict[str, Any]:
    """What ``engine.runtime.model.decoder.generate(**inputs)`` takes to answer from a memory.

    The decoder is the plain base model: any model of the same weights takes them. Greedy, they
    give the answer of `Engine.ask`.

    Args:
        reader: An engine, or another reader in torch.
        memory: A memory that its adapter made.
        question: The question, not blank.

    Returns:
        Of a key-value memory ``past_key_values``, a cache that `generate` goes on in, once, with
        ``input_ids`` [1, P + N], the first P of which stand for the places in it; of one of input
        embeddings ``inputs_embeds`` [1, P + N, D]. N is the length of the prompt. With both comes
        an ``attention_mask``.

    Raises:
        IncompatibleMemoryError: If the memory was made by another adapter or base.
        InputError: If the question is blank, the reader is not in torch, or the adapter leaves
            gaps between positions.
    """
    runtime = reader.decoder
    if not isinstance(runtime, TorchRuntime):
        raise InputError(
            "The reader has no model of transformers.", got=runtime.name, fix="Use icae.load()."
        )
    request = reader.request(memory, question)
    positions = input_positions(runtime.config, request.prefix, len(request.prompt_ids))
    if positions != list(range(len(positions))) or request.prefix is None:
        raise InputError(
            "The positions of this memory are not consecutive, as generate counts them.",
            got=f"layout {runtime.config.layout}",
            expected="layout default or uniform-encoder",
            fix="Ask with ask().",
        )
    return _inputs(runtime, request.prefix, request.prompt_ids, len(positions))


def _inputs(
    runtime: TorchRuntime, prefix: Prefix, prompt_ids: TokenIds, positions: int
) -> dict[str, Any]:
    model, prompt = runtime.model, torch.from_numpy(prompt_ids.astype("int64"))
    given: dict[str, Any] = {
        "attention_mask": torch.ones(1, positions, dtype=torch.long, device=model.device)
    }
    if isinstance(runtime.form, KeyValueForm):
        places = positions - len(prompt)
        given["past_key_values"] = copy.deepcopy(runtime.cache_of(prefix))
        given["input_ids"] = torch.cat([prompt.new_zeros(places), prompt])[None].to(model.device)
    else:
        parts = [runtime.form.inputs(prefix), runtime.read_tokens(prompt_ids)]
        given["inputs_embeds"] = torch.cat(parts)[None]
    return given
