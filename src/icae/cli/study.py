"""`icae study`: a memory learns from its own document what it will be asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from typer import Option

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.memories import MemoryPath, NewMemory, load_memories
from icae.cli.memory_tables import saved
from icae.cli.options import Count, ModelOptions


@command
def study(
    *,
    memory_path: MemoryPath,
    output: NewMemory,
    questions: Annotated[Path | None, Option(metavar="FILE")] = None,
    steps: Count = 60,
    batch: Count = 8,
    learning_rate: Annotated[float | None, Option(metavar="X", show_default="form's own")] = None,
    model: ModelOptions,
) -> Outcome:
    """Let a memory learn from its own document what it will be asked.

    Prompts about the text are answered from a finer memory of it (2x); gradient steps bring the
    answers from memory to these, until prompts that are held out no longer gain.

    Args:
        questions: Questions to be ready for, one a line; the decoder asks its own in any case.
        steps: Most steps.
        batch: Prompts of a step.
        learning_rate: Adam learning rate as a share of the RMS of what the slots are made of.
    """
    from icae.compression.study import StudyConfig
    from icae.data.documents import read_document

    config = StudyConfig(steps=steps, batch=batch, learning_rate=learning_rate)
    asked = [] if questions is None else read_document(str(questions)).text.splitlines()
    with output.locked(memory_path) as target:
        memory = load_memories(memory_path)
        icae = model.load(memory.provenance)
        begin = time.perf_counter()
        with console.progress("Studying") as on_progress:
            studied, held_out = icae.study(
                memory,
                config,
                questions=[line.strip() for line in asked if line.strip()],
                on_step=lambda done, total, held: on_progress(done, total),
            )
        return saved(
            studied,
            target,
            fidelity_before=memory.fidelity,
            held_out_kl_before=round(held_out[0], 4),
            held_out_kl=round(min(held_out), 4),
            steps=studied.spans[0].refine_steps - memory.spans[0].refine_steps,
            seconds=round(time.perf_counter() - begin, 3),
        )
