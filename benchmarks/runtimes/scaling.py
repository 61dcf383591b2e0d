"""How cost grows: with questions on one document, with its length, with rows and tokens."""

from __future__ import annotations

import itertools
import statistics
from functools import partial
from typing import Any

import numpy as np
from benchmarks.runtimes.measure import CLOCKS, Timer, peak_bytes, reset_peak, slope
from benchmarks.runtimes.setting import NO_STOP, RATIO, Setting, forget, requests

from icae.decode.prefix import Request
from icae.model import render_prompt


def questions(setting: Setting, timer: Timer) -> dict[str, Any]:
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

    def from_text(count: int, *, each: Any) -> None:
        forget(reader)
        for prompt in prompts[:count]:
            whole = np.concatenate([ids, prompt])
            decoder.generate(None, whole, max_new_tokens=sizes.answer, stop_ids=NO_STOP)
            each()

    ways = {
        "memory": from_memory,
        "full text, read anew": lambda n: from_text(n, each=lambda: forget(reader)),
        "full text, cache kept": lambda n: from_text(n, each=lambda: None),
    }
    lines = {}
    for name, way in ways.items():
        seconds = [timer.median(partial(way, n), repeats=3) for n in sizes.questions]
        each, fixed = slope(sizes.questions, seconds)
        lines[name] = {"seconds": seconds, "each_s": each, "fixed_s": fixed}
    memory = lines.pop("memory")
    crossings = {name: crossing(memory, other) for name, other in lines.items()}
    return {
        "questions": list(sizes.questions),
        "lines": {"memory": memory, **lines},
        "compressing_pays_after": crossings,
    }


def crossing(memory: dict[str, Any], other: dict[str, Any]) -> float | None:
    """Questions from which on the memory is cheaper, or None if it never is."""
    saved = other["each_s"] - memory["each_s"]
    extra = memory["fixed_s"] - other["fixed_s"]
    return max(extra / saved, 0.0) if saved > 0 else (0.0 if extra < 0 else None)


def long_documents(setting: Setting, timer: Timer) -> dict[str, Any]:
    """Time and peak memory of compressing documents up to a very long one, once each."""
    now = CLOCKS[timer.clock]
    setting.engine.compress(setting.text(256), ratio=RATIO, verify=False)
    rows = []
    for length in setting.sizes.long:
        text, ticks = setting.text(length), itertools.count()
        reset_peak()
        start = now()
        memory = setting.engine.compress(
            text, ratio=RATIO, verify=False, on_progress=lambda *_, ticks=ticks: next(ticks)
        )
        seconds = now() - start
        rows.append(
            {
                "tokens": memory.tokens,
                "seconds": seconds,
                "tokens_per_s": memory.tokens / seconds,
                "peak_mib": peak_bytes() / 1024**2,
                "progress_reports": next(ticks),
            }
        )
    rates = [row["tokens_per_s"] for row in rows]
    return {"rows": rows, "slowest_over_fastest": min(rates) / max(rates)}


def latency(setting: Setting, timer: Timer) -> dict[str, Any]:
    """The paper's table: rows x tokens, full context against compress, then decode."""
    sizes, decoder = setting.sizes, setting.engine.decoder
    repeats, rows = sizes.latency_repeats, []
    for count, length in sizes.latency:
        documents = [setting.document(length, i) for i in range(count)]
        whole = [
            Request(prefix=None, prompt_ids=np.concatenate([ids, setting.prompt]))
            for ids in documents
        ]
        asked = requests(setting.encode(documents), setting.prompt)

        def write(items: list[Request]) -> None:
            decoder.generate_many(items, max_new_tokens=sizes.latency_written, stop_ids=NO_STOP)

        full = timer.median(lambda: write(whole), repeats=repeats)  # noqa: B023
        compress = timer.median(lambda: setting.encode(documents), repeats=repeats)  # noqa: B023
        decode = timer.median(lambda: write(asked), repeats=repeats)  # noqa: B023
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
    return {
        "written": sizes.latency_written,
        "rows": rows,
        "median_full_over_decode": statistics.median(row["full_over_decode"] for row in rows),
    }
