"""What `--min-fidelity` makes of a document of prose, figures, identifiers, code and Korean.

python benchmarks/mixed_document.py --prose ../shared/data/heldout -o docs/results/mixed-document

The document is drawn by seed: prose from held-out text, a table of 200 random figures, 50
random UUIDs, a code listing and a Korean passage. It is compressed as `icae compress
--min-fidelity 0.99` does it, saved, loaded, and written back span by span. Reported are, for
each part: decoder positions, how its spans are held, refinement steps and seconds; and
which figures and UUIDs came back, counted in the text that was written back.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import icae
from icae.compression.adaptive import FidelityPolicy
from icae.compression.refinement import RefineConfig
from icae.config.checkout import commit
from icae.data.corpus import read_corpus
from icae.engine import Engine
from icae.evals.metadata import hardware, model_record
from icae.memory import Memory

COLUMNS = 5
CODE = '''def merge_sort(values):
    """Sort a list by merging sorted halves."""
    if len(values) < 2:
        return list(values)
    middle = len(values) // 2
    left, right = merge_sort(values[:middle]), merge_sort(values[middle:])
    merged = []
    while left and right:
        source = left if left[0] <= right[0] else right
        merged.append(source.pop(0))
    return merged + left + right


class Account:
    def __init__(self, owner: str, balance: float = 0.0) -> None:
        self.owner = owner
        self.balance = balance

    def withdraw(self, amount: float) -> None:
        if amount > self.balance:
            raise ValueError(f"only {self.balance} left")
        self.balance -= amount
'''
KOREAN = (
    "등대는 1861년에 화강암으로 지어졌다. 높이는 48미터이고 불빛은 스물네 해리 밖에서도 보인다. "
    "첫 등대지기는 아내와 세 아이와 함께 그곳에서 살았다. 배는 일 년에 두 번 왔고, "
    "겨울이 나쁘면 한 번도 오지 않았다.\n"
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stretch of the document of one kind."""

    kind: str
    char_start: int
    char_end: int


@dataclass(frozen=True, kw_only=True)
class MixedDocument:
    """The document and what must not be lost of it.

    Attributes:
        text: All of it.
        parts: Its parts, in order; they tile the text.
        figures: The figures of the table, in order.
        uuids: The UUIDs, in order.
    """

    text: str
    parts: tuple[Part, ...]
    figures: tuple[str, ...]
    uuids: tuple[str, ...]


def build(prose: str, *, figures: int, uuids: int, seed: int) -> MixedDocument:
    """Draw the document.

    Args:
        prose: The prose; half of it stands at the start and half at the end.
        figures: How many random figures the table has.
        uuids: How many random UUIDs there are.
        seed: Seed of figures and UUIDs.
    """
    rng = random.Random(seed)
    numbers = [f"{rng.uniform(0, 100_000):.2f}" for _ in range(figures)]
    names = [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(uuids)]
    rows = [numbers[i : i + COLUMNS] for i in range(0, figures, COLUMNS)]
    middle = prose.find(" ", len(prose) // 2) + 1
    pieces = [
        ("prose", prose[:middle] + "\n\n"),
        ("figures", "\n".join(" | ".join(row) for row in rows) + "\n\n"),
        ("uuids", "\n".join(names) + "\n\n"),
        ("code", CODE + "\n"),
        ("korean", KOREAN + "\n"),
        ("prose", prose[middle:] + "\n"),
    ]
    parts, at = [], 0
    for kind, piece in pieces:
        parts.append(Part(kind=kind, char_start=at, char_end=at + len(piece)))
        at += len(piece)
    return MixedDocument(
        text="".join(piece for _, piece in pieces),
        parts=tuple(parts),
        figures=tuple(numbers),
        uuids=tuple(names),
    )


def read_prose(paths: Sequence[Path], characters: int, *, seed: int) -> str:
    """Prose from a corpus: the same length from the inside of a few documents."""
    texts = [d.text for d in read_corpus(paths) if len(d.text) > characters]
    rng = random.Random(seed)
    each, found = characters // 4, []
    for text in rng.sample(texts, 4):
        start = text.find(". ", rng.randrange(len(text) - 2 * each)) + 2
        end = text.find(" ", start + each)
        found.append(" ".join(text[start:end].split()))
    return "\n\n".join(found)


def came_back(wanted: Sequence[str], text: str) -> int:
    """How many of some strings a text has, in order, each as a whole."""
    at = found = 0
    for one in wanted:
        place = text.find(one, at)
        if place >= 0:
            found += 1
            at = place + len(one)
    return found


def figures_by_kind(document: MixedDocument, memory: Memory) -> dict[str, dict[str, Any]]:
    """What became of each kind of text; a span counts for the part that holds most of it."""
    found: dict[str, dict[str, Any]] = {}
    for span in memory.spans:
        shares = [
            (min(p.char_end, span.char_end) - max(p.char_start, span.char_start), p.kind)
            for p in document.parts
        ]
        row = found.setdefault(
            max(shares)[1],
            {"tokens": 0, "positions": 0, "held_as": {}, "refine_steps": 0, "seconds": 0.0},
        )
        held = "verbatim" if span.kind == "tokens" else f"{span.ratio:g}x"
        row["tokens"] += span.tokens
        row["positions"] += span.positions
        row["held_as"][held] = row["held_as"].get(held, 0) + 1
        row["refine_steps"] += span.refine_steps
        row["seconds"] += span.refine_seconds
    for row in found.values():
        row["ratio"] = row["tokens"] / row["positions"]
    return found


def measure(engine: Engine, document: MixedDocument, policy: FidelityPolicy) -> dict[str, Any]:
    """Compress, save, load, write back, and count what came back."""
    begin, said = time.perf_counter(), [0.0]

    def show(done: int, total: int) -> None:
        passed = time.perf_counter() - begin
        if passed - said[0] > 30:
            said[0] = passed
            print(f"{done / total:.0%} after {passed:.0f} s", file=sys.stderr, flush=True)

    made = engine.compress(document.text, policy=policy, name="mixed.txt", on_progress=show)
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixed.icae"
        made.save(path)
        memory = Memory.load(path)
    text = engine.joined_text(memory, engine.reconstruct(memory))
    return {
        "tokens": memory.tokens,
        "positions": memory.positions,
        "slots": memory.slot_count,
        "verbatim_tokens": memory.verbatim_tokens,
        "ratio": memory.ratio,
        "fidelity": memory.fidelity,
        "spans": len(memory.spans),
        "spans_exact": sum(span.is_exact for span in memory.spans),
        "figures": [came_back(document.figures, text), len(document.figures)],
        "uuids": [came_back(document.uuids, text), len(document.uuids)],
        "whole_text_exact": text == document.text,
        "seconds": seconds,
        "kinds": figures_by_kind(document, memory),
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    found = report["result"]
    lines = [
        "# A mixed document under `--min-fidelity`",
        "",
        "| part | tokens | positions | ratio | spans held as | refinement steps | seconds |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    for kind, row in found["kinds"].items():
        held = ", ".join(f"{count} {how}" for how, count in sorted(row["held_as"].items()))
        lines.append(
            f"| {kind} | {row['tokens']} | {row['positions']} | {row['ratio']:.2f} | {held} | "
            f"{row['refine_steps']} | {row['seconds']:.0f} |"
        )
    lines += [
        f"| all | {found['tokens']} | {found['positions']} | {found['ratio']:.2f} | "
        f"{found['spans']} spans, {found['spans_exact']} exact | | {found['seconds']:.0f} |",
        "",
        f"Written back from the saved file: {found['figures'][0]} of {found['figures'][1]} "
        f"figures, {found['uuids'][0]} of {found['uuids'][1]} UUIDs; the whole text "
        + ("is exact." if found["whole_text_exact"] else "is not exact."),
        "",
        "Steps and seconds are of the slots that were kept; those of spans that ended verbatim "
        "are only in the total of seconds.",
        "",
        f"`{report['command']}`",
        "",
        f"icae {report['icae']}, commit {report['commit']}; adapter {report['adapter']['name']} "
        f"({report['adapter']['hash'][:12]}), {report['dtype']}; {report['hardware']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prose", type=Path, nargs="+", required=True, help="held-out corpus")
    parser.add_argument("--characters", type=int, default=3000, help="of prose")
    parser.add_argument("--figures", type=int, default=200)
    parser.add_argument("--uuids", type=int, default=50)
    parser.add_argument("--min-fidelity", type=float, default=0.99)
    parser.add_argument("--ratios", default="8,4,2")
    parser.add_argument("--steps", type=int, default=RefineConfig().steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adapter", default=None)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the result")
    options = parser.parse_args()
    prose = read_prose(options.prose, options.characters, seed=options.seed)
    document = build(prose, figures=options.figures, uuids=options.uuids, seed=options.seed)
    engine = icae.load(options.adapter)
    policy = FidelityPolicy(
        min_fidelity=options.min_fidelity,
        ratios=tuple(float(part) for part in options.ratios.split(",")),
        refine=RefineConfig(steps=options.steps),
    )
    report = {
        "command": " ".join(["python", *sys.argv]),
        "icae": icae.__version__,
        "commit": commit(),
        **model_record(engine),
        "hardware": hardware(torch.device("cpu")),
        "policy": asdict(policy),
        "result": measure(engine, document, policy),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    page = markdown(report)
    (options.output / "mixed-document.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.output / "mixed-document.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
