"""The whole loop on one base: load, check, train, save, load, compress, ask, write back, refine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

import icae
from icae.compression.refinement import RefineConfig, RefineTask, refine
from icae.config import ModelConfig
from icae.decode.prefix import Prefix
from icae.decode.torch_forms import form_of
from icae.errors import BaseModelError
from icae.model.adapter import FORMS, save_adapter
from icae.model.adapter_files import AdapterInfo
from icae.model.base import computation_hash, load_decoder, load_tokenizer
from icae.model.base_files import tokenizer_hash
from icae.model.objectives import Sample, autoencoding, continuation
from icae.model.self_check import checked_base

TEXT = "The inner thing is in the thin tin: a thief ran there. "
SETTINGS: dict[str, dict[str, Any]] = {
    "embeddings": {"memory": "embeddings"},
    "key-values": {"memory": "key-values", "framing": "between", "objective_tokens": 2},
}
"""Form of memory -> settings of an adapter for it."""


def loop(decoder: Any, tokenizer: Any, form: str, folder: Path) -> str:
    """Take a base through everything that is done with one; each step is asserted.

    Args:
        decoder: The base, float32.
        tokenizer: A tokenizer for it.
        form: The form of memory.
        folder: An empty folder.

    Returns:
        "yes", or why the base is refused.
    """
    decoder.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    base = str(folder / "base")
    try:
        loaded = load_decoder(base, dtype=torch.float32, device="cpu")
        weights = checked_base(base, loaded)
        settings = {"span_length": 16, "lora_rank": 4, "lora_alpha": 8.0, "max_slots": 16}
        config = ModelConfig(**(settings | SETTINGS[form]))
        model = FORMS[config.memory](loaded, config)
    except BaseModelError as error:
        return str(error.got)
    train(model)
    info = AdapterInfo(
        name="tiny",
        base_model=base,
        base_hash=weights,
        base_settings=computation_hash(loaded.config),
        tokenizer_hash=tokenizer_hash(load_tokenizer(base)),
        model=config,
    )
    save_adapter(model, info, folder / "adapter")
    engine = icae.load(folder / "adapter", device="cpu", dtype="float32")
    assert engine.runtime.kv_bytes(8) > 0
    memory = engine.compress(TEXT, ratio=4)
    answer = engine.ask(memory, "Who?", max_new_tokens=3)
    assert 1 <= answer.answer_tokens <= 3
    asked = [(memory, "Who?"), (memory, "Where is it?")]
    together = engine.ask_many(asked, max_new_tokens=3)
    assert together[0].text == answer.text
    assert len(engine.reconstruct(memory)) == len(memory.spans)
    refine_once(engine)
    return "yes"


def train(model: Any) -> None:
    """Three steps, in training mode, that lower the loss; the base stays what it was."""
    before = {name: p.clone() for name, p in model.decoder.named_parameters()}
    ids = np.random.default_rng(1).integers(0, 256, 28)
    tasks = (autoencoding(ids[:20]), continuation(ids[20:]))
    sample = Sample(context_ids=ids[:20], ratio=4.0, tasks=tasks)
    model.train()
    # Where layers are computed twice, their keys and values are not kept.
    if model.config.memory == "embeddings" and model.decoder.supports_gradient_checkpointing:
        model.checkpoint_activations()
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=3e-3)
    losses = []
    for _ in range(4):
        loss = torch.stack([score.loss_sum for score in model([sample])]).sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert losses[3] < losses[0], losses
    for name, weight in model.decoder.named_parameters():
        assert torch.equal(weight, before[name]), name


def refine_once(engine: Any) -> None:
    """One small step on the slots of a span lowers the loss of writing it back."""
    ids = np.random.default_rng(2).integers(0, 256, 12)
    (payload,) = engine.runtime.encode([ids], [3])
    # Keys and values are stored in bfloat16, which a smaller step would not change.
    rate = 1e-4 if engine.config.memory == "embeddings" else 3e-3
    config = RefineConfig(
        steps=1, kl_weight=0.0, target=1.0, slack=math.inf, learning_rate=rate, probe=0
    )
    task = RefineTask(token_ids=ids, payload=payload)
    ((_, found),) = refine(form_of(engine.runtime.model), [task], config)
    losses = []
    for slots in (payload, found.payload):
        prefix = Prefix.of_payload(slots, tokens=len(ids), objective="ae")
        (score,) = engine.runtime.score([prefix], [autoencoding(ids)])
        losses.append(float(score.loss_sum))
    assert losses[1] < losses[0], losses
