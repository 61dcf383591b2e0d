"""How cost grows: with questions on one document, with its length, with rows and tokens."""

from __future__ import annotations

import itertools
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.runtimes.measure import median
from benchmarks.runtimes.setting import NO_STOP, RATIO, Setting, forget, requests

from icae.decode.prefix import Request
from icae.model.prompts import render_prompt


def questions(setting: Setting) -> dict[str, Any]:
    """Seconds for n questions on one document, asked one after another.

    Three ways: compressed once, then asked from the memory, whose cache is kept; from the
    full text, read anew for each question, as a server without state does; and from the
    full text with its cache kept between the questions.
    """
    sizes, reader = setting.sizes, setting.engine
    decoder, ids = reader.decoder, setting.document(sizes.document)
    prompts = [
        render_prompt(reader.tokenizer, f"What is said about step {i + 1}?")
        for i in range(max(sizes.questions))
    ]

    def from_memory(count: int) -> None:
        forget(reader)
        (prefix,) = setting.encode([ids])
        for prompt in prompts[:count]:
            decoder.generate(prefix, prompt, max_new_tokens=sizes.answer, stop_ids=NO_STOP)

    def from_text(count: int, *, keep: bool) -> None:
        forget(reader)
        for prompt in prompts[:count]:
            whole = np.concatenate([ids, prompt])
            decoder.generate(None, whole, max_new_tokens=sizes.answer, stop_ids=NO_STOP)
            if not keep:
                forget(reader)

    ways = {
        "memory": from_memory,
        "full text, read anew": partial(from_text, keep=False),
        "full text, cache kept": partial(from_text, keep=True),
    }
    lines = {}
    for name, way in ways.items():
        seconds = [median(partial(way, n), repeats=3) for n in sizes.questions]
        each, fixed = statistics.linear_regression(sizes.questions, seconds)
        lines[name] = {"seconds": seconds, "each_s": each, "fixed_s": fixed}
    return {
        "questions": list(sizes.questions),
        "lines": lines,
        "compressing_pays_after": {
            name: crossing(lines["memory"], line)
            for name, line in lines.items()
            if name != "memory"
        },
    }


def crossing(memory: dict[str, Any], other: dict[str, Any]) -> float | None:
    """Questions from which on the memory is cheaper, or None if it never is."""
    saved = other["each_s"] - memory["each_s"]
    extra = memory["fixed_s"] - other["fixed_s"]
    return max(extra / saved, 0.0) if saved > 0 else (0.0 if extra < 0 else None)


def long_documents(setting: Setting) -> dict[str, Any]:
    """Time and peak memory (Linux) of compressing documents up to a very long one, once each."""
    setting.engine.compress(setting.text(256), ratio=RATIO, verify=False)
    rows = []
    for length in setting.sizes.long:
        text, ticks = setting.text(length), itertools.count()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        start = time.perf_counter()
        memory = setting.engine.compress(
            text, ratio=RATIO, verify=False, on_progress=lambda *_, ticks=ticks: next(ticks)
        )
        seconds = time.perf_counter() - start
        status = Path("/proc/self/status").read_text().splitlines()
        peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        rows.append(
            {
                "tokens": memory.tokens,
                "seconds": seconds,
                "tokens_per_s": memory.tokens / seconds,
                "peak_mib": peak_kib / 1024,
                "progress_reports": next(ticks),
            }
        )
    return {"rows": rows}


def latency(setting: Setting) -> dict[str, Any]:
    """The paper's table: rows x tokens, full context against compress, then decode."""
    sizes, decoder = setting.sizes, setting.engine.decoder

    def write(items: list[Request]) -> None:
        decoder.generate_many(items, max_new_tokens=sizes.answer, stop_ids=NO_STOP)

    rows = []
    for count, length in sizes.latency:
        documents = [setting.document(length, i) for i in range(count)]
        whole = [
            Request(prefix=None, prompt_ids=np.concatenate([ids, setting.prompt]))
            for ids in documents
        ]
        asked = requests(setting.encode(documents), setting.prompt)
        full, compress, decode = (
            median(action, repeats=sizes.batch_repeats)
            for action in (
                partial(write, whole),
                partial(setting.encode, documents),
                partial(write, asked),
            )
        )
        rows.append(
            {
                "rows": count,
                "tokens": length,
                "full_s": full,
                "compress_s": compress,
                "decode_s": decode,
                "full_over_both": full / (compress + decode),
                "full_over_decode": full / decode,
            }
        )
    return {"written": sizes.answer, "rows": rows}
