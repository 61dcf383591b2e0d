"""A bulk run in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from icae.serve.bulk.compress import BlockWork, BlockWorker
from icae.serve.bulk.documents import Block


def run_here(work: BlockWork, blocks: Sequence[Block]) -> Iterator[int]:
    """Compress blocks one after the other.

    Args:
        work: How.
        blocks: Which.

    Yields:
        The number of each block once it is written.
    """
    worker = BlockWorker(work)
    for block in blocks:
        worker.run(block)
        yield block.index
