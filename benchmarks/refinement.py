"""How close encoding and refinement come to the machine's matrix-multiply ceiling.

python benchmarks/refinement.py examples/pep-0347.txt --adapter smollm2-135m-kv --ratio 4

One run measures the ceiling (bfloat16 products of 2048 x 2048), encodes the document, refines every
span until all of its tokens are reproduced by a margin, and has it written back freely. Seconds are
of the processor, so that other work beside it does not count; wall seconds stand beside them.

Model FLOP, without attention scores, LoRA, padding or the optimizer; P weights in the matrices of
the layers, of which a share u is run at every step (all for slots, the upper half for key-values,
whose lower half is run once), V x D vocabulary head, L tokens, K slots, M objective tokens behind:

    encoding a span     2 P (L + K)     (of key-values the last layer's K and V projections alone)
    a step's reading    2 P u (r + M + L - 1) + 2 V D L    (r: K for slots, 0 for key-values)
    its gradients       as many

A span of n steps is read n + 1 times and has gradients n times.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import icae
from icae.compression.compressor import readable
from icae.compression.refinement import RefineConfig, RefineTask, refine
from icae.engine import Engine
from icae.evals.metadata import hardware
from icae.model.adapted_decoder import layers_of

SIZE = 2048


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What some work gave, processor seconds and wall seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.process_time() - processor, time.perf_counter() - wall


def ceiling() -> float:
    """TFLOP/s of large products in bfloat16, the best of three."""
    square = torch.randn(SIZE, SIZE).bfloat16()
    return max(2 * SIZE**3 / timed(lambda: square @ square)[1] / 1e12 for _ in range(3))


def unread(last: torch.nn.Module) -> int:
    """Weights of a last layer that its keys and values do not rest on (Llama's names)."""
    return sum(
        p.numel()
        for name, p in last.named_parameters()
        if name.split(".")[-2] not in ("k_proj", "v_proj", "input_layernorm")
    )


def shared(tflop: float, seconds: float, wall: float, most: float) -> dict[str, float]:
    """Figures of one kind of work."""
    return {
        "tflop": round(tflop, 3),
        "processor_seconds": round(seconds, 2),
        "wall_seconds": round(wall, 2),
        "tflop_per_processor_second": round(tflop / seconds, 4),
        "share_of_ceiling": round(tflop / seconds / most, 3),
    }


def main() -> None:
    """Measure one document and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("document", type=Path)
    parser.add_argument("--adapter")
    parser.add_argument("--ratio", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=RefineConfig().steps)
    parser.add_argument("--spans", type=int, help="first spans alone")
    options = parser.parse_args()
    engine = icae.load(options.adapter)
    print(json.dumps(measure(engine, options), indent=2))


def measure(engine: Engine, options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    model, compressor = engine.runtime.model, engine.compressor
    weights = sum(p.numel() for layer in layers_of(model.decoder) for p in layer.parameters())
    head = model.decoder.get_output_embeddings().weight.numel()
    cut = compressor.cut(compressor.tokenize(options.document.read_text()))[: options.spans]
    lengths = [span.tokens for span in cut]
    compressor.encode(cut[:1], ratio=options.ratio)  # the first pass prepares what is kept

    most = ceiling()
    encoded, seconds, wall = timed(
        lambda: compressor.encode(cut, ratio=options.ratio, verify=False)
    )
    slots = [span.positions for span in encoded]
    key_values = model.config.memory == "key-values"
    needed = weights - (unread(layers_of(model.decoder)[-1]) if key_values else 0)
    encoding = 2 * needed * (sum(lengths) + sum(slots)) / 1e12
    report: dict[str, Any] = {
        "adapter": engine.name,
        "spans": len(cut),
        "tokens": sum(lengths),
        "ratio": options.ratio,
        "hardware": hardware(model.device),
        "encoding": shared(encoding, seconds, wall, most),
    }
    tflop = 0.0
    config = RefineConfig(target=1.0, steps=options.steps, slack=float("inf"))
    ids = [span.verbatim_ids for span in cut]
    tasks = [
        RefineTask(token_ids=own, payload=readable(span))
        for own, span in zip(ids, encoded, strict=True)
    ]
    refined, seconds, wall = timed(
        lambda: dict(
            refine(engine.runtime.form, tasks, config, teach=engine.adaptive.teachers.write)
        )
    )
    for i, result in refined.items():
        read = model.config.objective_tokens + lengths[i] - 1 + (0 if key_values else slots[i])
        passes = 2 * result.steps + 1
        run = passes / 2 + 1 / 2 if key_values else passes
        tflop += 2 * (weights * read * run + head * lengths[i] * passes) / 1e12
    report["refinement"] = shared(tflop, seconds, wall, most)
    steps = [refined[i].steps for i in range(len(cut))]
    report["steps"] = {"mean": round(sum(steps) / len(steps), 2), "most": max(steps), "all": steps}
    made = [
        replace(
            span,
            payload=refined[i].payload,
            fidelity=refined[i].token_fidelity.share,
            token_fidelity=refined[i].token_fidelity,
        )
        for i, span in enumerate(encoded)
    ]
    tried, seconds, wall = timed(lambda: compressor.written_back(made, ids))
    report["written_back"] = {
        "exact": sum(span.written_back is True for span in tried),
        "processor_seconds": round(seconds, 2),
        "wall_seconds": round(wall, 2),
    }
    report["ceiling_tflop_per_second"] = [round(most, 4), round(ceiling(), 4)]
    return report


if __name__ == "__main__":
    main()
