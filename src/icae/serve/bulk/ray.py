"""A bulk run by the workers of a Ray cluster: Ray Data over stateful encoder actors.

What travels are places in files, not text: every worker reads its own documents and writes its
own parts, so input and output have to lie where all machines reach them. A worker that dies is
started again, and its block with it.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from icae.config.extras import import_extra
from icae.errors import WorkerError
from icae.serve.bulk.documents import Block, reason_of
from icae.serve.bulk.folder import BulkFolder
from icae.serve.bulk.run import BlockWorker, BulkJob

TRIES = 3
"""How many workers a block may cost before it is given up."""

MAX_TASKS = 10_000
"""Most tasks of a run; with more blocks, one task takes several."""

log = logging.getLogger(__name__)


class RayWorker:
    """One actor: the model loaded once, blocks one by one."""

    def __init__(self, job: BulkJob) -> None:
        self.worker, self.folder = BlockWorker(job), BulkFolder(job.output)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Compress the block of a row; what fails is told, so that the others go on.

        Ray starts a worker that died again as often as it takes. The tries of a block are
        counted in the output folder before each, as a dead worker cannot count.
        """
        block: Block = pickle.loads(row["block"])  # made by this program in the same run
        if self.folder.tries(block.index) >= TRIES:
            return {"index": block.index, "error": f"its worker died {TRIES} times"}
        self.folder.count_try(block.index)
        try:
            self.worker.run(block)
        except Exception as error:
            return {"index": block.index, "error": reason_of(error)}
        return {"index": block.index, "error": ""}


@dataclass(frozen=True, kw_only=True)
class RayRunner:
    """Runs blocks on Ray: on the cluster of $RAY_ADDRESS, else on this machine.

    `workers` is the number of encoder actors, `cpus` and `gpus` what each takes.
    """

    workers: int
    cpus: int = 1
    gpus: int = 0

    def __call__(self, job: BulkJob, blocks: Sequence[Block]) -> Iterator[int]:
        """Compress blocks; see `icae.serve.bulk.run.Runner`.

        Blocks that failed, or whose worker died again and again, are left out.

        Raises:
            MissingDependencyError: If Ray is not installed.
            WorkerError: If Ray cannot be started or reached.
        """
        ray = _ray()
        rows = [{"block": pickle.dumps(block)} for block in blocks]
        with self._connected(ray):
            ray.data.DataContext.get_current().enable_progress_bars = False
            made = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_TASKS)).map(
                RayWorker,
                fn_constructor_args=(job,),
                compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(rows))),
                num_cpus=self.cpus,
                num_gpus=self.gpus,
            )
            for row in made.iter_rows():
                if row["error"]:
                    log.warning("block %d: %s", row["index"], row["error"])
                else:
                    yield int(row["index"])

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        """Connected to the cluster, or to one on this machine that ends with the run."""
        if ray.is_initialized():
            yield
            return
        # On this machine one processor more than the workers take: reading never waits for them.
        own = {"num_cpus": self.workers * self.cpus + 1, "include_dashboard": False}
        local = {} if os.environ.get("RAY_ADDRESS") else own
        logging.getLogger("ray").setLevel(logging.ERROR)
        # Ray Data's own actors make Ray's core print a warning at every start.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **local)
        except Exception as error:  # Ray raises plain ones where it cannot start or connect
            raise WorkerError(
                "Ray cannot be started, or its cluster not reached.",
                got=reason_of(error),
                fix="Check $RAY_ADDRESS; on a very busy machine set "
                "RAY_raylet_start_wait_time_s=300; --workers 0 needs no Ray.",
            ) from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


def _ray() -> Any:
    purpose = "Anything but --workers 0"
    import_extra("ray.data", purpose=purpose, extra="bulk")
    return import_extra("ray", purpose=purpose, extra="bulk")
