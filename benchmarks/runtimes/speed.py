"""Encoding, first token and decoding, each against what it stands for."""

from __future__ import annotations

import ctypes
import statistics
from typing import Any

import numpy as np
import torch
from benchmarks.runtimes.measure import Figure, at_least, at_most, median
from benchmarks.runtimes.setting import NO_STOP, Setting, forget, requests

from icae.decode.llamacpp.runtime import LlamaCppRuntime
from icae.decode.prefix import Prefix
from icae.decode.reader import Reader


def encode_throughput(setting: Setting) -> Figure:
    """Encoding a document against a plain prefill of its tokens, both in torch."""
    tokens = setting.sizes.document
    ids = setting.document(tokens)
    decoder = setting.engine.runtime.model.decoder

    def prefill() -> None:
        row = torch.from_numpy(ids)[None]
        with torch.inference_mode():
            decoder.base_model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=True)

    plain = median(prefill)
    encode = median(lambda: setting.encode([ids]))
    return at_least(
        "encode throughput / plain prefill throughput, torch",
        plain / encode,
        0.75,
        encode_tokens_per_s=tokens / encode,
        prefill_tokens_per_s=tokens / plain,
    )


def first_token(setting: Setting, name: str) -> list[Figure]:
    """Time to the first token from a memory against that from the whole text."""
    reader = setting.readers[name]
    decoder, prompt = reader.decoder, setting.prompt
    whole = np.concatenate([setting.document(setting.sizes.document), prompt])

    def ask(prefix: Prefix | None, ids: Any) -> None:
        decoder.generate(prefix, ids, max_new_tokens=1, stop_ids=NO_STOP)

    full = median(lambda: ask(None, whole), before=lambda: forget(reader))
    uncached = median(lambda: ask(setting.prefix, prompt), before=lambda: forget(reader))
    data = decoder.save_kv(setting.prefix)

    def from_cache() -> None:
        decoder.load_kv(setting.prefix, data)
        ask(setting.prefix, prompt)

    cached = median(from_cache, before=lambda: forget(reader))
    parts = {"full_s": full, "uncached_s": uncached, "cached_s": cached}
    return [
        at_most(
            f"first token, cached / full context, {name}", cached / full, 0.1, "<= 1/10", **parts
        ),
        at_most(
            f"first token, not cached / full context, {name}",
            uncached / full,
            1 / 3.5,
            "<= 1/3.5",
            **parts,
        ),
    ]


def decode_rate(reader: Reader, prefix: Prefix, prompt: Any, written: int) -> float:
    """Tokens a second of one answer, after its first token."""

    def write(tokens: int) -> None:
        reader.decoder.generate(prefix, prompt, max_new_tokens=tokens, stop_ids=NO_STOP)

    write(1)
    first = median(lambda: write(1))
    return written / (median(lambda: write(1 + written)) - first)


def decoding(setting: Setting) -> list[Figure]:
    """Decoding in llama.cpp against torch, and ours against the same engine driven bare."""
    written, prompt = setting.sizes.written, setting.prompt
    rates = {
        name: decode_rate(reader, setting.prefix, prompt, written)
        for name, reader in setting.readers.items()
    }
    bare = {"torch": bare_torch(setting), "llamacpp": bare_llamacpp(setting)}
    figures = [
        at_least(
            "decode tokens/s, llama.cpp / torch",
            rates["llamacpp"] / rates["torch"],
            3,
            torch=rates["torch"],
            llamacpp=rates["llamacpp"],
        )
    ]
    return figures + [
        at_least(
            f"decode tokens/s, our loop / bare engine, {name}",
            rates[name] / bare[name],
            0.95,
            ours=rates[name],
            bare=bare[name],
        )
        for name in rates
    ]


def bare_torch(setting: Setting) -> float:
    """Tokens a second of a bare transformers loop behind as many tokens."""
    decoder, written = setting.engine.runtime.model.decoder, setting.sizes.written
    places = setting.prefix.positions + len(setting.prompt)
    state: dict[str, Any] = {}

    def prefill() -> None:
        row = torch.from_numpy(setting.document(places))[None]
        with torch.inference_mode():
            made = decoder(input_ids=row, use_cache=True, logits_to_keep=1)
        state.update(cache=made.past_key_values, token=made.logits[:, -1:].argmax(-1))

    def loop() -> None:
        with torch.inference_mode():
            for _ in range(written):
                made = decoder(
                    input_ids=state["token"], past_key_values=state["cache"], use_cache=True
                )
                state["token"] = made.logits[:, -1:].argmax(-1)

    return written / median(loop, before=prefill)


def bare_llamacpp(setting: Setting) -> float:
    """Tokens a second of bare llama_decode calls behind as many tokens."""
    runtime: LlamaCppRuntime = setting.llama.decoder  # type: ignore[assignment]
    api, written = runtime.model.api, setting.sizes.written
    places = setting.prefix.positions + len(setting.prompt)
    context = runtime._room(places + written + 1, sequences=1)

    def decode(ids: Any) -> int:
        items = (ctypes.c_int32 * len(ids))(*ids)  # the batch only points to them
        batch = api.llama_batch_get_one(items, len(ids))
        assert api.llama_decode(context.pointer, batch) == 0
        found = api.llama_get_logits_ith(context.pointer, -1)
        return int(np.ctypeslib.as_array(found, shape=(runtime.vocabulary,)).argmax())

    def prefill() -> None:
        forget(setting.llama)
        context.forget(0)
        ids = setting.document(places).tolist()
        for at in range(0, places, 512):
            decode(ids[at : at + 512])

    def loop() -> None:
        token = 1
        for _ in range(written):
            token = decode([token])

    rate = written / median(loop, before=prefill)
    context.forget(0)
    runtime.last = None
    return rate


def batch_decoding(setting: Setting, name: str) -> Figure:
    """A batch behind slots against the same batch behind the tokens they stand for.

    Timed from the first token of the batch to its last.
    """
    sizes, reader = setting.sizes, setting.readers[name]
    documents = [setting.document(sizes.document, i) for i in range(sizes.batch)]
    rates = {}
    for kind, prefixes in (
        ("slots", setting.encode(documents)),
        ("tokens", [setting.raw(ids) for ids in documents]),
    ):
        asked = requests(prefixes, setting.prompt)
        seconds = []
        for _ in range(sizes.batch_repeats):
            made = reader.decoder.generate_many(
                asked, max_new_tokens=1 + sizes.written, stop_ids=NO_STOP
            )
            seconds.append(max(m.seconds - m.first_token_seconds for m in made))
        rates[kind] = sizes.batch * sizes.written / statistics.median(seconds)
    return at_least(
        f"decode tokens/s at batch {sizes.batch}, behind slots / behind their tokens, {name}",
        rates["slots"] / rates["tokens"],
        1.3,
        **rates,
    )
