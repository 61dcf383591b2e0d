"""Seconds and memory: full context, compress and decode, decode with the memory cached.

Source: Ge et al. 2024, section 3.4 (latency table).

Shape legend: S decoder places, D hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch

from icae.config.types import TokenIds
from icae.decode.prefix import Prefix, Request
from icae.decode.torch_rows import Row as DecoderRow
from icae.decode.torch_rows import greedy_rows
from icae.engine import Engine
from icae.errors import ConfigError
from icae.evals.bootstrap import mean_figure
from icae.evals.decoding import encode_contexts, slot_budget
from icae.evals.experiment import Cell, Material, TextExperiment
from icae.evals.metadata import hardware
from icae.evals.peak_memory import with_peak
from icae.evals.plots import lines_of
from icae.evals.tables import Row, columns_of
from icae.model.decoder import KeyValues

FULL, COMPRESS, CACHED = "full context", "compress + decode", "cached memory"
PAPER_SIZES = ((8, 512), (8, 2048), (32, 512))
"""(batch, length) of the paper's table, 128 tokens generated."""
PAPER_TOKENS = 128
TOKENS_PER_PASS = 16384
"""Context tokens encoded in one pass: there are no vocabulary logits to hold."""


class Timed(NamedTuple):
    """One run of one way: wall time in all, to the first token of all rows, and of compressing."""

    seconds: float
    first: float
    compress: float
    written: tuple[tuple[int, ...], ...]
    """Tokens written in each row."""

    @property
    def decode_rate(self) -> float | None:
        """Tokens a second of all rows after the first of each, or None if that took no time."""
        later = sum(len(ids) - 1 for ids in self.written)
        return later / (self.seconds - self.first) if self.seconds > self.first else None


@dataclass(frozen=True, kw_only=True)
class Latency(TextExperiment):
    """The three ways to read a context, by batch, length and ratio.

    Lengths and samples follow from the sizes, whatever is said of them.

    Attributes:
        sizes: (batch, context length) of each measurement.
        tokens: Tokens generated in each row.
        repeats: Times each is measured, after one that does not count.
    """

    lengths: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int], ...]
    tokens: int = 16
    repeats: int = 3

    name = "latency"
    title = "Seconds and memory behind full context and slots"
    question = "What time and memory are saved?"
    quick: ClassVar = {"sizes": ((1, 128), (4, 256)), "ratios": (4.0,), "tokens": 8, "repeats": 2}
    full: ClassVar = {"full": True, "ratios": (4.0,)}
    columns = columns_of(
        "batch length ratio kind positions seconds compress first decode_rate speedup "
        "kv_mb peak_mb",
        kind="way",
        first="first token (s)",
    )
    plots = lines_of("seconds first speedup decode_rate")
    notes = (
        "Compress + decode: encoding every context, reading its slots and writing. Cached "
        "memory: the keys and values of slots and first [LM] tokens are there already.",
        "KV cache: of all rows at the last token. Peak: memory above the start of one run; "
        "on a CPU of the whole process, so only large differences mean something.",
        "Ratios between the ways hold for this machine alone, the more so if it did other "
        "work at the time.",
    )

    grows = ("lengths", "ratios", "samples", "sizes")

    @classmethod
    def sized(cls, span: int, *, full: bool = False, **settings: Any) -> Self:
        """The experiment, of any span length; `full`: of the sizes of the paper."""
        sizes = {"sizes": PAPER_SIZES, "tokens": PAPER_TOKENS} if full else {}
        return cls(**settings | sizes)

    def __post_init__(self) -> None:
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
        batches, lengths = zip(*self.sizes, strict=True)
        object.__setattr__(self, "lengths", tuple(sorted(set(lengths))))
        object.__setattr__(self, "samples", max(2, *batches))
        super().__post_init__()

    @property
    def positions(self) -> int:
        """The longest context, what is written, and what frames a memory."""
        return max(self.lengths) + self.tokens + 16

    def fixed(self) -> dict[str, Any]:
        """The settings besides sizes, with the machine: timings of two are no one result."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        rest = super().fixed()
        del rest["window"]
        return {**rest, "machine": hardware(device)}

    def remarks(self, material: Material) -> tuple[str, ...]:
        """How to read the figures."""
        repeats = (
            f"{self.tokens} tokens are written greedily in every row, none ends early; "
            f"{self.repeats} repeats after one that does not count, the three ways in turn in "
            "each repeat. Intervals are over repeats; the speed-up is of one repeat."
        )
        return (repeats, *self.notes)

    def cells(self, material: Material) -> list[Cell]:
        """Every size and ratio."""
        return [
            Cell(length=length, ratio=ratio, batch=batch)
            for batch, length in self.sizes
            for ratio in self.ratios
        ]

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell: the three ways."""
        engine, contexts = material.engine, self.contexts(material, cell)[: cell.batch]
        ways = reading_ways(engine, contexts, ratio=cell.known_ratio, tokens=self.tokens)
        device = engine.runtime.model.device
        peaks = {name: with_peak(device, work)[1] for name, work in ways.items()}
        repeats = [{name: work() for name, work in ways.items()} for _ in range(self.repeats)]
        slots = slot_budget(cell.length, engine.config, cell.known_ratio)
        behind = slots + engine.config.front + engine.config.objective_tokens
        several = f", {cell.times}" if len(self.ratios) > 1 else ""
        made = []
        for name, peak in peaks.items():
            positions = cell.length if name == FULL else behind
            kv_bytes = len(contexts) * engine.runtime.kv_bytes(positions + self.tokens)
            row = {
                "kind": f"{name}, batch {cell.batch}",
                "series": f"{name}{several}, batch {cell.batch}",
                "positions": positions,
                **self._figures(name, repeats),
                "kv_mb": round(kv_bytes / 1e6, 3),
                "peak_mb": None if peak is None else round(peak / 1e6, 1),
            }
            made.append(row)
        return made

    def _figures(self, name: str, repeats: Sequence[Mapping[str, Timed]]) -> Row:
        """Means over the repeats of a way, and the repeats."""
        own = [runs[name] for runs in repeats]
        values = {
            "seconds": [run.seconds for run in own],
            "first": [run.first for run in own],
            "decode_rate": [run.decode_rate for run in own if run.decode_rate is not None],
            "speedup": [runs[FULL].seconds / runs[name].seconds for runs in repeats],
        }
        if name == COMPRESS:
            values["compress"] = [run.compress for run in own]
        figures = {key: mean_figure(v, seed=self.seed) for key, v in values.items() if v}
        rounded = {key: [round(one, 5) for one in v] for key, v in values.items()}
        return {**figures, "repeats": rounded}


def reading_ways(
    engine: Engine, contexts: Sequence[TokenIds], *, ratio: float, tokens: int
) -> dict[str, Callable[[], Timed]]:
    """What is timed, by name."""
    runtime, nothing = engine.runtime, np.zeros(0, dtype=np.int64)

    def compressed() -> list[Prefix]:
        memories = encode_contexts(runtime, contexts, ratio=ratio, bound=TOKENS_PER_PASS)
        return [memory.prefix(runtime, "lm") for memory in memories]

    def rows(requests: Sequence[Request], read: Mapping[str, KeyValues]) -> list[DecoderRow]:
        made = []
        for request in requests:
            made.append(runtime.row(request, read, limit=tokens))
        return made

    def behind(prefixes: Sequence[Prefix], read: Mapping[str, KeyValues]) -> list[DecoderRow]:
        return rows([Request(prefix=prefix, prompt_ids=nothing) for prefix in prefixes], read)

    def write(rows: Sequence[DecoderRow], begin: float, compress: float) -> Timed:
        first = 0.0
        written: list[list[int]] = [[] for _ in rows]
        for step in greedy_rows(runtime.model.decoder, rows, frozenset()):
            first = first or time.perf_counter() - begin
            for row, token in step.items():
                written[row].append(token)
        seconds = time.perf_counter() - begin
        return Timed(seconds, first, compress, tuple(map(tuple, written)))

    def full() -> Timed:
        begin = time.perf_counter()
        return write(rows([Request(prefix=None, prompt_ids=ids) for ids in contexts], {}), begin, 0)

    def compress() -> Timed:
        begin = time.perf_counter()
        prefixes = compressed()
        seconds = time.perf_counter() - begin
        return write(behind(prefixes, {}), begin, seconds)

    prefixes = compressed()
    # The last [LM] token is left to read.
    digests = [prefix.digest for prefix in prefixes]
    cached = behind(prefixes, dict(zip(digests, runtime.read_prefixes(prefixes), strict=True)))
    return {
        FULL: full,
        COMPRESS: compress,
        CACHED: lambda: write(cached, time.perf_counter(), 0),
    }
