"""Seconds and memory: full context, compress and decode, decode with the memory cached.

Source: Ge et al. 2024, section 3.4 (latency table).

Shape legend: B rows of a batch, S decoder places, K slots, D hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from icae.config.spans import plan_spans, slot_count
from icae.config.types import TokenIds
from icae.decode.prefix import Prefix
from icae.decode.torch_rows import Row as DecoderRow
from icae.decode.torch_rows import greedy_rows, read_fronts
from icae.engine import Icae
from icae.errors import ConfigError
from icae.evals.contexts import Window
from icae.evals.experiment import (
    Cell,
    Column,
    Experiment,
    Grid,
    Panel,
    Row,
    plain,
    require_fit,
)
from icae.evals.memories import STEP_COST, Tick
from icae.evals.metadata import hardware
from icae.evals.metrics import mean_estimate
from icae.evals.peak_memory import with_peak

FULL, COMPRESS, CACHED = "full context", "compress + decode", "cached memory"
PAPER_SIZES = ((8, 512), (8, 2048), (32, 512))
"""(batch, length) of the paper's table, 128 tokens generated."""
PAPER_TOKENS = 128
TOKENS_PER_PASS = 16384
"""Context tokens encoded in one pass: there are no vocabulary logits to hold."""


@dataclass(frozen=True, kw_only=True)
class LatencySettings(Grid):
    """Settings of the experiment; `lengths` and `samples` follow from the sizes.

    Attributes:
        sizes: (batch, context length) of each measurement.
        tokens: Tokens generated in each row.
        repeats: Times each is measured, after one that does not count.
    """

    sizes: tuple[tuple[int, int], ...]
    tokens: int = 16
    repeats: int = 3

    name = "latency"
    title = "Seconds and memory behind full context and slots"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sizes or min(batch for batch, _ in self.sizes) < 1:
            raise ConfigError(
                "The sizes are out of range.", got=str(self.sizes), expected="batches >= 1"
            )
        if self.tokens < 2 or self.repeats < 1:
            raise ConfigError(
                "There is too little to measure.",
                got=f"{self.tokens} tokens, {self.repeats} repeats",
                expected="2 tokens, 1 repeat or more",
            )

    @classmethod
    def of_sizes(
        cls, sizes: Sequence[tuple[int, int]], *, ratios: tuple[float, ...], **rest: Any
    ) -> LatencySettings:
        """Settings of some sizes.

        Args:
            sizes: (batch, context length) of each measurement.
            ratios: Compression ratios.
            rest: Other attributes.
        """
        return cls(
            lengths=tuple(sorted({length for _, length in sizes})),
            samples=max(2, *(batch for batch, _ in sizes)),
            sizes=tuple(sizes),
            ratios=ratios,
            **rest,
        )

    def fixed(self) -> dict[str, Any]:
        """The settings besides sizes, with the machine: timings of two are no one result."""
        rest = super().fixed()
        for key in ("sizes", "samples", "window"):
            del rest[key]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return {**rest, "machine": hardware(device)}

    def build(self, engine: Icae, windows: Sequence[Window]) -> Experiment:
        """The experiment on a loaded model and drawn windows."""
        return Latency(engine, self, windows)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One run of one way.

    Attributes:
        seconds: Wall time in all.
        first: Wall time to the first token of all rows.
        compress: Wall time of compressing, part of both.
        written: Tokens written in each row.
    """

    seconds: float
    first: float
    compress: float
    written: tuple[tuple[int, ...], ...]

    @property
    def decode_rate(self) -> float | None:
        """Tokens a second of all rows after the first of each, or None if that took no time."""
        later = sum(len(ids) - 1 for ids in self.written)
        return later / (self.seconds - self.first) if self.seconds > self.first else None


class Latency:
    """The three ways to read a context, by batch, length and ratio.

    Args:
        engine: Adapter and base model.
        settings: Sizes, ratios, repeats.
        windows: Where the contexts stand.
    """

    columns = (
        Column(title="batch", key="batch"),
        Column(title="length", key="length"),
        Column(title="ratio", key="ratio"),
        Column(title="way", key="kind"),
        Column(title="positions", key="positions"),
        Column(title="seconds", key="seconds", digits=3),
        Column(title="of it compressing", key="compress", digits=3),
        Column(title="first token (s)", key="first", digits=3),
        Column(title="decode (tokens/s)", key="decode_rate", digits=1),
        Column(title="speed-up over full", key="speedup", digits=2),
        Column(title="KV cache (MB)", key="kv_mb", digits=2),
        Column(title="peak (MB)", key="peak_mb", digits=1),
    )
    panels = (
        Panel(key="seconds", title="seconds in all", limits=(0, None)),
        Panel(key="first", title="seconds to the first token", limits=(0, None)),
        Panel(key="speedup", title="seconds of full context / seconds", level=1.0),
        Panel(key="decode_rate", title="decoded tokens per second, all rows", limits=(0, None)),
    )

    def __init__(self, engine: Icae, settings: LatencySettings, windows: Sequence[Window]) -> None:
        self.engine, self.settings, self.windows = engine, settings, windows
        require_fit(engine, max(settings.lengths) + settings.tokens + 16)

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the figures."""
        return (
            f"{self.settings.tokens} tokens are written greedily in every row, none ends early; "
            f"{self.settings.repeats} repeats after one that does not count, the three ways in "
            "turn in each repeat. Intervals are over repeats; the speed-up is of one repeat.",
            "Compress + decode: encoding every context, reading its slots and writing. Cached "
            "memory: the keys and values of slots and first [LM] tokens are there already.",
            "KV cache: of all rows at the last token. Peak: memory above the start of one run; "
            "on a CPU of the whole process, so only large differences mean something.",
            "Ratios between the ways hold for this machine alone, the more so if it did other "
            "work at the time.",
        )

    def cells(self) -> list[Cell]:
        """Every size and ratio."""
        return [
            Cell(length=length, ratio=ratio, batch=batch)
            for batch, length in self.settings.sizes
            for ratio in self.settings.ratios
        ]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        assert cell.batch is not None
        once = cell.batch * 3 * cell.length + 3 * STEP_COST * self.settings.tokens
        return once * (self.settings.repeats + 1)

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The rows of a cell: the three ways."""
        assert cell.batch is not None
        assert cell.ratio is not None
        contexts = [w.context(cell.length) for w in self.windows[: cell.batch]]
        ways = self._ways(contexts, cell.ratio)
        runs: dict[str, list[Timed]] = {name: [] for name in ways}
        peaks: dict[str, int | None] = {}
        device = self.engine.runtime.model.device
        for repeat in range(self.settings.repeats + 1):
            for name, work in ways.items():
                if repeat == 0:
                    _, peaks[name] = with_peak(device, work)
                else:
                    runs[name].append(work())
                tick(self.cost(cell) // (3 * (self.settings.repeats + 1)))
        plans = plan_spans(
            cell.length, span_length=self.engine.config.span_length, ratio=cell.ratio
        )
        config = self.engine.config
        behind = sum(p.slots for p in plans) + config.front + config.objective_tokens
        positions = {FULL: cell.length, COMPRESS: behind, CACHED: behind}
        return [
            self._row(cell, name, runs[name], runs[FULL], positions[name], peaks[name])
            for name in ways
        ]

    def _ways(self, contexts: Sequence[TokenIds], ratio: float) -> dict[str, Callable[[], Timed]]:
        """What is timed, by name."""
        runtime = self.engine.runtime
        cached = self._read(self._compress(contexts, ratio))

        def full() -> Timed:
            begin = time.perf_counter()
            with torch.inference_mode():
                embeds = [runtime.read_tokens(ids) for ids in contexts]
            places = [list(range(len(ids))) for ids in contexts]
            return self._write([_row(e, p) for e, p in zip(embeds, places, strict=True)], begin, 0)

        def compress() -> Timed:
            begin = time.perf_counter()
            prefixes = self._compress(contexts, ratio)
            seconds = time.perf_counter() - begin
            made = [_row(runtime.prefix_embeds(p), runtime.positions(p, 0)) for p in prefixes]
            return self._write(made, begin, seconds)

        return {
            FULL: full,
            COMPRESS: compress,
            CACHED: lambda: self._write(cached, time.perf_counter(), 0),
        }

    def _compress(self, contexts: Sequence[TokenIds], ratio: float) -> list[Prefix]:
        """The memories of all contexts."""
        runtime, span_length = self.engine.runtime, self.engine.config.span_length
        plans = [plan_spans(len(ids), span_length=span_length, ratio=ratio) for ids in contexts]
        pieces = [
            ids[p.token_start : p.token_end]
            for ids, spans in zip(contexts, plans, strict=True)
            for p in spans
        ]
        each = max(1, TOKENS_PER_PASS // span_length)
        slots = []
        for start in range(0, len(pieces), each):
            part = pieces[start : start + each]
            slots += runtime.encode(part, [slot_count(len(ids), ratio) for ids in part])
        made = iter(slots)
        return [
            Prefix.of_slots(
                np.concatenate([next(made) for _ in spans]),
                [(p.length, p.slots) for p in spans],
                "lm",
            )
            for spans in plans
        ]

    def _read(self, prefixes: Sequence[Prefix]) -> list[DecoderRow]:
        """Rows whose memory was read before; the last [LM] token is left to read."""
        runtime = self.engine.runtime
        embeds = [runtime.prefix_embeds(prefix) for prefix in prefixes]
        places = [runtime.positions(prefix, 0) for prefix in prefixes]
        fronts = read_fronts(
            runtime.model.decoder, [e[:-1] for e in embeds], [p[:-1] for p in places]
        )
        return [
            DecoderRow(front=front, tail_SD=e[-1:], positions=p[-1:], limit=0)
            for front, e, p in zip(fronts, embeds, places, strict=True)
        ]

    def _write(self, rows: Sequence[DecoderRow], begin: float, compress: float) -> Timed:
        """Write behind the rows and stop the clock."""
        limit, first = self.settings.tokens, 0.0
        written: list[list[int]] = [[] for _ in rows]
        limited = [
            DecoderRow(front=r.front, tail_SD=r.tail_SD, positions=r.positions, limit=limit)
            for r in rows
        ]
        for step in greedy_rows(self.engine.runtime.model.decoder, limited, frozenset()):
            first = first or time.perf_counter() - begin
            for row, token in zip(step.rows, step.tokens, strict=True):
                written[row].append(token)
        return Timed(
            seconds=time.perf_counter() - begin,
            first=first,
            compress=compress,
            written=tuple(map(tuple, written)),
        )

    def _row(
        self,
        cell: Cell,
        name: str,
        runs: Sequence[Timed],
        full: Sequence[Timed],
        positions: int,
        peak: int | None,
    ) -> Row:
        assert cell.batch is not None
        several = f", {cell.ratio:g}x" if len(self.settings.ratios) > 1 else ""
        rates = [r.decode_rate for r in runs if r.decode_rate is not None]
        figures = {
            "seconds": [r.seconds for r in runs],
            "first": [r.first for r in runs],
            "decode_rate": rates,
            "speedup": [f.seconds / r.seconds for f, r in zip(full, runs, strict=True)],
        }
        if name == COMPRESS:
            figures["compress"] = [r.compress for r in runs]
        seed, kv = self.settings.seed, self.engine.runtime.kv_bytes
        return {
            "kind": f"{name}, batch {cell.batch}",
            "series": f"{name}{several}, batch {cell.batch}",
            "positions": positions,
            **{
                key: plain(mean_estimate(values, seed=seed))
                for key, values in figures.items()
                if values
            },
            "kv_mb": round(cell.batch * kv(positions + self.settings.tokens) / 1e6, 3),
            "peak_mb": None if peak is None else round(peak / 1e6, 1),
            "repeats": {key: [round(v, 5) for v in values] for key, values in figures.items()},
        }


def _row(embeds_SD: torch.Tensor, positions: Sequence[int]) -> DecoderRow:
    return DecoderRow(front=None, tail_SD=embeds_SD, positions=positions, limit=0)
