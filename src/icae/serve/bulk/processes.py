"""A bulk run by several processes of this machine, each of which loads the model once.

What travels are places in files, not text: every process reads its own documents and writes its
own parts.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from icae.errors import WorkerError
from icae.serve.bulk.documents import Block
from icae.serve.bulk.run import BlockWorker, BulkJob

_job: list[BulkJob] = []


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Runs blocks in so many processes; see `icae.serve.bulk.run.Runner`."""

    workers: int

    def __call__(self, job: BulkJob, blocks: Sequence[Block]) -> Iterator[int]:
        """Compress blocks, and give the number of each that is written.

        Raises:
            IcaeError: What loading the model raised.
            WorkerError: If a process died; what was written stays.
        """
        pool = ProcessPoolExecutor(
            max_workers=min(self.workers, len(blocks)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_receive,
            initargs=(job,),
        )
        with pool:
            try:
                for done in as_completed([pool.submit(_run, block) for block in blocks]):
                    yield done.result()
            except BrokenProcessPool as error:
                raise WorkerError(
                    "A worker died; the blocks that were done are there.",
                    got="its process was killed",
                    fix="Run the command again: only the others are done. Fewer workers take less "
                    "memory; with --workers 0 this process shows what happens.",
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)


def _receive(job: BulkJob) -> None:
    _job.append(job)


@functools.cache
def _worker() -> BlockWorker:
    """That of this process, its model loaded."""
    return BlockWorker(_job[0])


def _run(block: Block) -> int:
    return _worker().run(block)
