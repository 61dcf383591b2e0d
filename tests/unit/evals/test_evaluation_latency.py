from __future__ import annotations

import mmap
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from icae.errors import InputError
from icae.evals.decoding import encode_contexts
from icae.evals.latency import CACHED, COMPRESS, FULL, Latency, reading_ways
from icae.evals.peak_memory import with_peak

SETTINGS = Latency(sizes=((1, 16), (3, 40)), ratios=(4.0,), tokens=4, repeats=2)
NOTHING = np.array([], dtype=np.int64)


def test_every_way_writes_what_the_runtime_writes(engine: Any, windows: Any) -> None:
    contexts = [window.context(40) for window in windows(40, 3)]

    ways = reading_ways(engine, contexts, ratio=4.0, tokens=4)
    written = {name: work().written for name, work in ways.items()}

    memories = encode_contexts(engine.runtime, contexts, ratio=4.0)
    for i, (ids, memory) in enumerate(zip(contexts, memories, strict=True)):
        full = engine.runtime.generate(None, ids, max_new_tokens=4, stop_ids=())
        prefix = memory.prefix(engine.runtime, "lm")
        behind = engine.runtime.generate(prefix, NOTHING, max_new_tokens=4, stop_ids=())
        assert written[FULL][i] == full.token_ids
        assert written[COMPRESS][i] == written[CACHED][i] == behind.token_ids
        assert behind.positions == 11  # 4 + 4 + 2 slots and the [LM] token


def test_rows_hold_times_and_sizes_of_the_three_ways(run: Any, engine: Any) -> None:
    rows = run(SETTINGS).rows
    assert [(r["batch"], r["length"], r["kind"].partition(",")[0]) for r in rows] == [
        (batch, length, way)
        for batch, length in ((1, 16), (3, 40))
        for way in (FULL, COMPRESS, CACHED)
    ]
    for row in rows:
        repeats = row["repeats"]
        assert len(repeats["seconds"]) == 2
        for total, first in zip(repeats["seconds"], repeats["first"], strict=True):
            assert 0 < first <= total
        assert row["seconds"]["value"] == pytest.approx(np.mean(repeats["seconds"]), abs=1e-4)
    full, compress, cached = rows[3:]
    assert full["speedup"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert full["kv_mb"] == pytest.approx(3 * engine.kv_bytes(44) / 1e6, abs=1e-3)
    assert (
        cached["kv_mb"]
        == compress["kv_mb"]
        == pytest.approx(3 * engine.kv_bytes(15) / 1e6, abs=1e-3)
    )
    assert "compress" in compress
    assert "compress" not in cached
    ratios = [
        f / r for f, r in zip(full["repeats"]["seconds"], cached["repeats"]["seconds"], strict=True)
    ]
    assert cached["speedup"]["value"] == pytest.approx(np.mean(ratios), rel=0.05)


def test_timings_of_another_machine_make_another_run(run: Any, monkeypatch: Any) -> None:
    small = replace(SETTINGS, sizes=((1, 16),))
    run(small)
    monkeypatch.setattr("icae.evals.latency.hardware", lambda device: "another machine")
    with pytest.raises(InputError, match="another run"):
        run(small)


def test_peak_is_what_the_work_takes() -> None:
    def work() -> int:
        # Pages of its own: an array might get memory that an earlier test freed.
        with mmap.mmap(-1, 32 << 20) as pages:
            return pages.write(b"\1" * (32 << 20))

    result, peak = with_peak(torch.device("cpu"), work)
    assert result == 32 << 20
    assert peak is None or peak > 25 << 20
