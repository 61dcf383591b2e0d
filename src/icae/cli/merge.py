"""`icae merge`: several memories as one."""

from __future__ import annotations

from icae.cli.answering import load_memories
from icae.cli.memory_output import NewOutput, saved
from icae.cli.options import AsJson, Force, MemoryPaths
from icae.cli.outcome import Outcome, reported
from icae.cli.output_file import check_output


@reported
def merge(
    memories: MemoryPaths,
    output: NewOutput,
    force: Force = False,
    as_json: AsJson = False,
) -> Outcome:
    """Put the documents of several memories into one file, in order. Loads no model."""
    check_output(output, if_exists="replace" if force else "refuse", inputs=memories)
    return saved(load_memories(memories), output)
