"""A bulk run by the workers of a Ray cluster: one actor each, which loads the model once.

What travels are places in files, not text: every worker reads its own documents and writes its
own parts, so input and output have to lie where all machines reach them. Ray starts a worker
that dies again, and its block with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from icae.config.extras import import_extra
from icae.errors import WorkerError
from icae.serve.bulk.documents import Block, reason_of
from icae.serve.bulk.run import BlockWorker, BulkJob

TRIES = 3
"""How many workers a block may cost before it is given up."""

log = logging.getLogger(__name__)


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
            WorkerError: If Ray cannot be started or reached, or a worker cannot load the model.
        """
        purpose = "Anything but --workers 0"
        ray = import_extra("ray", purpose=purpose, extra="bulk")
        pools = import_extra("ray.util", purpose=purpose, extra="bulk")
        with self._connected(ray):
            worker = ray.remote(BlockWorker).options(
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_restarts=-1,
                max_task_retries=TRIES - 1,
            )
            actors = [worker.remote(job) for _ in range(min(self.workers, len(blocks)))]
            try:
                ready, _ = ray.wait([actor.__ray_ready__.remote() for actor in actors])
                ray.get(ready)
            except Exception as error:  # ray's for what the first of them raised
                raise WorkerError(
                    "A worker cannot load the model.",
                    got=reason_of(error)[-300:],
                    fix="With --workers 0 this process shows what happens.",
                ) from error
            pool = pools.ActorPool(actors)
            for block in blocks:
                pool.submit(lambda actor, block: actor.run.remote(block), block)
            while pool.has_next():
                try:
                    yield pool.get_next_unordered()
                except Exception as error:  # of the block, or ray's for a worker that died
                    log.warning("a block was not compressed: %s", reason_of(error)[:300])

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        """Connected to the cluster, or to one on this machine that ends with the run."""
        if ray.is_initialized():
            yield
            return
        own = {"num_cpus": self.workers * self.cpus, "include_dashboard": False}
        local = {} if os.environ.get("RAY_ADDRESS") else own
        logging.getLogger("ray").setLevel(logging.ERROR)
        # Ray's core prints a warning at every start of an actor.
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
        try:
            yield
        finally:
            ray.shutdown()
