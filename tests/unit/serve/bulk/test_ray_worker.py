"""What is asked of Ray, by a stand-in for it; Ray itself: tests/integration."""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from icae.errors import WorkerError
from icae.serve.bulk import run_bulk
from icae.serve.bulk.ray import TRIES, RayRunner

pytest.importorskip("pyarrow")


class Pool:
    """Runs what is submitted when it is asked for, the last first."""

    def __init__(self, actors: list[Any]) -> None:
        self.actors, self.waiting = actors, []

    def submit(self, run: Any, block: Any) -> None:
        self.waiting.append((run, block))

    def has_next(self) -> bool:
        return bool(self.waiting)

    def get_next_unordered(self) -> Any:
        run, block = self.waiting.pop()
        return run(self.actors[block.index % len(self.actors)], block)


class Actor:
    """A worker of this process; Ray calls its methods through `remote`."""

    def __init__(self, kind: Any, job: Any) -> None:
        worker = functools.cache(lambda: kind(job))
        self.run = SimpleNamespace(remote=lambda block: worker().run(block))
        self.__ray_ready__ = SimpleNamespace(remote=lambda: worker)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Ray whose actors live in this process; `asked` holds what it was told."""
    asked: dict[str, Any] = {}

    def options(kind: Any, **given: Any) -> Any:
        asked.update(given)
        return SimpleNamespace(remote=functools.partial(Actor, kind))

    fake = SimpleNamespace(
        asked=asked,
        is_initialized=lambda: False,
        init=lambda **options: asked.update(init=options),
        shutdown=lambda: asked.update(shut=True),
        wait=lambda refs: (refs[:1], refs[1:]),
        get=lambda refs: [ref() for ref in refs],
        remote=lambda kind: SimpleNamespace(options=functools.partial(options, kind)),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.util", SimpleNamespace(ActorPool=Pool))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return fake


def test_blocks_are_done_by_actors_that_ray_starts_again(build_job: Any, ray: Any) -> None:
    summary = run_bulk(build_job(), RayRunner(workers=2, cpus=3, gpus=1))
    assert (summary.documents, summary.blocks) == (10, 4)
    assert (ray.asked["num_cpus"], ray.asked["num_gpus"]) == (3, 1)
    assert (ray.asked["max_restarts"], ray.asked["max_task_retries"]) == (-1, TRIES - 1)
    assert ray.asked["init"]["num_cpus"] == 6
    assert ray.asked["shut"]


def test_a_block_that_fails_is_told_and_the_others_are_done(
    build_job: Any, ray: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take = Pool.get_next_unordered

    def dying(pool: Pool) -> Any:
        if pool.waiting[-1][1].index == 2:
            pool.waiting.pop()
            raise RuntimeError("the actor died")
        return take(pool)

    monkeypatch.setattr(Pool, "get_next_unordered", dying)
    with pytest.raises(WorkerError, match=r"1 of 4 blocks missing.*document 7"):
        run_bulk(build_job(), RayRunner(workers=2))
    assert "the actor died" in caplog.text


@pytest.mark.parametrize("what", ["node", "model"])
def test_workers_that_do_not_start_are_told_with_a_way_out(
    build_job: Any, ray: Any, what: str
) -> None:
    def broken(**options: Any) -> None:
        raise RuntimeError(f"the {what} timed out")

    if what == "node":
        ray.init = broken
    job = build_job(encoder=broken) if what == "model" else build_job()
    with pytest.raises(WorkerError, match=f"the {what} timed out") as told:
        run_bulk(job, RayRunner(workers=2))
    assert "--workers 0" in (told.value.fix or "")
