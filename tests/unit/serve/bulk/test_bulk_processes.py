"""Blocks done by two processes, one of which is killed."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from word_encoder import WordEncoder

from icae.errors import AdapterError, WorkerError
from icae.serve.bulk import run_bulk, run_here
from icae.serve.bulk.processes import Processes

pytest.importorskip("pyarrow")

pytestmark = pytest.mark.slow


@dataclass
class Mortal(WordEncoder):
    """Its process is killed at document 7, the first time."""

    marker: Path

    def compress_many(self, texts: Sequence[str], **options: Any) -> Any:
        if any("Document 7" in text for text in texts) and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().compress_many(texts, **options)


def refuse() -> None:
    raise AdapterError("The adapter is missing.", fix="Name another.")


def files_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_killed_worker_loses_no_document_and_changes_no_byte(
    build_job: Any, tmp_path: Path
) -> None:
    alone = build_job("alone")
    run_bulk(alone, run_here)
    job = build_job(encoder=functools.partial(Mortal, tmp_path / "killed"))
    with pytest.raises(WorkerError, match="worker died"):
        run_bulk(job, Processes(workers=2))
    summary = run_bulk(job, Processes(workers=2))
    assert summary.documents == 10
    assert files_of(job.output) == files_of(alone.output)


def test_what_keeps_the_model_from_loading_is_told(build_job: Any) -> None:
    with pytest.raises(AdapterError, match="missing") as told:
        run_bulk(build_job(encoder=refuse), Processes(workers=1))
    assert told.value.fix == "Name another."
