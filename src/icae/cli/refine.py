"""`icae refine`: better slots for the weak spans of a memory file."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from icae.cli.answering import load_memories
from icae.cli.command import Outcome, command
from icae.cli.memory_output import saved
from icae.cli.options import ChangedMemory, MemoryPath, ModelOptions
from icae.cli.refinement import DEFAULT_STEPS, DEFAULT_TARGET, refine_in_place


@command
def refine(
    *,
    memory_path: MemoryPath,
    min_fidelity: Annotated[
        float,
        typer.Option(
            "--min-fidelity", metavar="F", help="Fidelity at which a span is done (0..1)."
        ),
    ] = DEFAULT_TARGET,
    steps: Annotated[
        int, typer.Option("--steps", min=1, metavar="N", help="Most steps for each span.")
    ] = DEFAULT_STEPS,
    output: ChangedMemory,
    model: ModelOptions,
) -> Outcome:
    """Optimise the slots of spans below a fidelity. Stopped, it goes on where it was."""
    target = output.target(memory_path)
    memory = load_memories([memory_path])
    icae = model.load()
    start = time.perf_counter()
    better = refine_in_place(icae, memory, target, steps=steps, fidelity=min_fidelity)
    changed = sum(
        before.refine_steps != after.refine_steps
        for before, after in zip(memory.spans, better.spans, strict=True)
    )
    return saved(
        better,
        target,
        refined_spans=changed,
        fidelity_before=memory.fidelity,
        seconds=round(time.perf_counter() - start, 3),
    )
