"""What a Ray worker does with a block, in this process; Ray itself: tests/integration."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from word_encoder import WordEncoder

from icae.errors import WorkerError
from icae.serve.bulk import run_bulk
from icae.serve.bulk.documents import cut_blocks, list_files
from icae.serve.bulk.folder import BulkFolder
from icae.serve.bulk.ray import TRIES, RayRunner, RayWorker

pytest.importorskip("pyarrow")


def row_of(job: Any) -> dict[str, Any]:
    """The first block of a run that was begun, as it travels to a worker."""
    BulkFolder(job.output).open({})
    return {"block": pickle.dumps(cut_blocks(list_files(job.source), size=3)[0])}


def test_a_worker_writes_the_block_of_its_row(build_job: Any) -> None:
    job = build_job()
    assert RayWorker(job)(row_of(job)) == {"index": 0, "error": ""}
    assert BulkFolder(job.output).has(0)


def test_a_block_that_cost_several_workers_is_given_up(build_job: Any) -> None:
    job = build_job()
    row = row_of(job)
    for _ in range(TRIES):
        BulkFolder(job.output).count_try(0)
    assert "died" in RayWorker(job)(row)["error"]
    assert not BulkFolder(job.output).has(0)


def test_a_block_that_cannot_be_read_is_told_and_its_worker_lives(build_job: Any) -> None:
    job = build_job(encoder=WordEncoder)
    row = row_of(job)
    job.source.unlink()
    assert "cannot be read" in RayWorker(job)(row)["error"]


def test_ray_that_does_not_start_is_told_with_a_way_out(
    build_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**options: Any) -> None:
        raise RuntimeError("the node timed out")

    idle = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setattr("icae.serve.bulk.ray._ray", lambda: idle)
    with pytest.raises(WorkerError, match="the node timed out"):
        run_bulk(build_job(), RayRunner(workers=2))
