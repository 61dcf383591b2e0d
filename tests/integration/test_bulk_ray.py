"""A bulk run on a local Ray with two workers, one of which is killed. Needs ``make test-bulk``."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="ray is not installed: run `make test-bulk`")

from icae.errors import WorkerError  # noqa: E402
from icae.serve.bulk import BulkJob, run_bulk, run_here  # noqa: E402
from icae.serve.bulk.ray import RayRunner  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "serve" / "bulk"))
import word_encoder  # noqa: E402

import word_memories  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DOCUMENTS = 24


class Mortal(word_encoder.WordEncoder):
    """Its process is killed at the text that says so: once, or, without a marker, always."""

    def __init__(self, marker: str | None) -> None:
        self.marker = marker

    def compress_many(self, texts: Sequence[str], **options: Any) -> Any:
        if any("deadly" in text for text in texts) and self._strikes():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().compress_many(texts, **options)

    def _strikes(self) -> bool:
        if self.marker is None:
            return True
        first = not Path(self.marker).exists()
        Path(self.marker).touch()
        return first


class OpenMortal:
    def __init__(self, marker: str | None) -> None:
        self.marker = marker

    def __call__(self) -> Mortal:
        return Mortal(self.marker)


@pytest.fixture(scope="module", autouse=True)
def _workers_know_the_encoder() -> Iterator[None]:
    """Workers do not import the tests: what they need of them travels by value.

    Nor are they niced, as Ray does by default: on a busy machine they would hardly start.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    for module in (word_memories, word_encoder, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    if ray.is_initialized():
        ray.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "docs.jsonl"
    texts = [f"Document {i} speaks of {i} things." for i in range(DOCUMENTS)]
    texts[13] += " This one is deadly."
    lines = [json.dumps({"id": f"doc-{i}", "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join([*lines, "{"]), encoding="utf-8")
    return path


def job(source: Path, output: Path, open_encoder: Any) -> BulkJob:
    return BulkJob(
        source=source,
        output=output,
        load=open_encoder,
        ratio=4.0,
        verify=True,
        keep_source=True,
        block_size=2,
        maker={"adapter": "a" * 64},
    )


def files_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_killed_worker_loses_no_document_and_changes_no_byte(source: Path, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    run_bulk(job(source, tmp_path / "alone", word_encoder.WordEncoder), run_here)
    progress: list[tuple[int, int]] = []
    summary = run_bulk(
        job(source, tmp_path / "ray", OpenMortal(str(marker))),
        RayRunner(workers=2),
        on_progress=lambda *at: progress.append(at),
    )
    assert marker.exists(), "no worker was killed"
    assert summary.documents == DOCUMENTS
    assert summary.rejected == 1
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "alone")
    assert progress[-1] == (DOCUMENTS + 1, DOCUMENTS + 1)


def test_document_that_always_kills_its_worker_is_named_and_the_rest_is_kept(
    source: Path, tmp_path: Path
) -> None:
    mortal = job(source, tmp_path / "out", OpenMortal(None))
    with pytest.raises(WorkerError, match=r"docs\.jsonl, document 13"):
        run_bulk(mortal, RayRunner(workers=2))
    held = [row["id"] for row in word_encoder.rows_of(tmp_path / "out")]
    lost = {"doc-12", "doc-13"}
    assert held == [f"doc-{i}" for i in range(DOCUMENTS) if f"doc-{i}" not in lost]
    healed = run_bulk(job(source, tmp_path / "out", word_encoder.WordEncoder), run_here)
    assert healed.documents == DOCUMENTS
