"""The same memory and question in torch float32 and llama.cpp: the same greedy tokens?"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from benchmarks.runtimes.setting import NO_STOP, RATIO, Setting

from icae import engine as api
from icae.decode.prefix import Prefix, Request
from icae.model.prompts import render_prompt
from icae.opening import open_llamacpp

TOLERANCE = 0.1
"""Nats by which the two candidates may differ, in torch float32, where the answers part.

bfloat16 keeps 8 bits: the weights are the same, but llama.cpp rounds every activation to
bfloat16 before each product, and keeps its cache in float16."""

PASSAGES = 5


def ask_both(setting: Setting) -> dict[str, Any]:
    """Put questions on several passages to torch float32 and to llama.cpp bfloat16.

    Returns:
        How many answers are the same, and where they part the gap of log-probabilities.
    """
    sizes = setting.sizes
    exact = api.load(device="cpu", dtype="float32")
    rounded = open_llamacpp()
    asked = questions(setting, exact)
    written = {
        name: reader.decoder.generate_many(asked, max_new_tokens=sizes.answer, stop_ids=NO_STOP)
        for name, reader in (("torch", exact), ("llamacpp", rounded))
    }
    gaps = []
    for request, ours, theirs in zip(asked, written["torch"], written["llamacpp"], strict=True):
        pairs = zip(ours.token_ids, theirs.token_ids, strict=True)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if at is not None:
            gaps.append(gap(exact, request, ours.token_ids[:at], theirs.token_ids[at]))
    return {
        "questions": len(asked),
        "tokens_each": sizes.answer,
        "same": len(asked) - len(gaps),
        "gaps_nats": sorted(gaps),
        "largest_gap_nats": max(gaps, default=0.0),
        "tolerance_nats": TOLERANCE,
        "within_tolerance": max(gaps, default=0.0) <= TOLERANCE,
    }


def questions(setting: Setting, engine: api.Engine) -> list[Request]:
    """Questions about words of several passages of the document."""
    text = setting.text(setting.sizes.document)
    size = len(text) // PASSAGES
    each = -(-setting.sizes.parity // PASSAGES)
    made = []
    for number in range(PASSAGES):
        passage = text[number * size : (number + 1) * size]
        prefix = Prefix.of_memory(engine.compress(passage, ratio=RATIO, verify=False), "ft")
        words = list(dict.fromkeys(re.findall(r"[A-Za-z]{5,}", passage)))[:each]
        made += [
            Request(
                prefix=prefix,
                prompt_ids=render_prompt(engine.tokenizer, f"What does it say about {word}?"),
            )
            for word in words
        ]
    return made[: setting.sizes.parity]


@torch.inference_mode()
def gap(engine: api.Engine, request: Request, written: tuple[int, ...], other: int) -> float:
    """How much less likely a token is than the best one, in nats, behind what was written."""
    runtime = engine.runtime
    prompt = np.append(request.prompt_ids, np.asarray(written, dtype=np.int64))
    row = runtime._inputs(request.prefix, prompt, 0)[None]
    logits = runtime.model.decoder(inputs_embeds=row, logits_to_keep=1).logits[0, -1]
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    return float(log_probs.max() - log_probs[other])
