from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from word_encoder import TEXTS, WordEncoder, rows_of

from icae.errors import InputError, ResultConflictError, WorkerError
from icae.memory import memory_bytes, memory_from_bytes
from icae.serve.bulk import run_bulk, run_here
from icae.serve.bulk.folder import BulkFolder

pytest.importorskip("pyarrow")


class Stopping(WordEncoder):
    """Is interrupted at its third block."""

    calls = 0

    def compress_many(self, texts: Sequence[str], **options: Any) -> Any:
        type(self).calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return super().compress_many(texts, **options)


def test_every_document_becomes_a_row_in_order(build_job: Any) -> None:
    job = build_job()
    summary = run_bulk(job, run_here)
    rows = rows_of(job.output)
    assert [row["id"] for row in rows] == [f"doc-{i}" for i in range(10)]
    assert (summary.documents, summary.blocks) == (10, 4)
    assert (summary.rejected, summary.resumed) == (0, 0)
    assert (summary.tokens, summary.slots) == (90, 30)
    for row, text in zip(rows, TEXTS, strict=True):
        assert row["sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert row["fidelity"] == pytest.approx(5 / 9)
        expected = WordEncoder().compress(text, ratio=4.0, name=row["id"], verify=True)
        assert row["memory"] == memory_bytes(expected)
        assert memory_from_bytes(row["memory"], where=row["id"]).documents[0].source == text


def test_two_documents_of_one_id_are_refused_before_anything_is_made(
    build_job: Any, write_lines: Any
) -> None:
    lines = [{"id": name, "text": f"text {at}"} for at, name in enumerate("abca")]
    job = build_job(source=write_lines(lines, name="twice.jsonl"))
    with pytest.raises(InputError, match="same id") as told:
        run_bulk(job, run_here)
    assert told.value.got == "id 'a' at twice.jsonl:1 and at twice.jsonl:4"
    assert not job.output.exists()


def test_interrupted_run_goes_on_and_gives_the_bytes_of_a_whole_one(
    build_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stopping, "calls", 0)
    whole, stopped = build_job("whole"), build_job("stopped", encoder=Stopping)
    run_bulk(whole, run_here)
    with pytest.raises(KeyboardInterrupt):
        run_bulk(stopped, run_here)
    folder = stopped.output
    (folder / "parts" / ".icae-0011.tmp").write_bytes(b"half")
    assert len(list((folder / "parts").glob("part-*"))) == 2
    summary = run_bulk(stopped, run_here)
    assert summary.resumed == 2
    assert Stopping.calls == 5
    bytes_of = [
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (folder, whole.output)
    ]
    assert bytes_of[0] == bytes_of[1]


def test_finished_run_opens_no_model_again(build_job: Any) -> None:
    run_bulk(build_job(), run_here)

    def never() -> None:
        raise AssertionError("a model was loaded")

    progress: list[tuple[int, int]] = []
    summary = run_bulk(
        build_job(encoder=never), run_here, on_progress=lambda *p: progress.append(p)
    )
    assert summary.resumed == summary.blocks
    assert progress == [(10, 10)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("this is forbidden", "The text is forbidden. (bad)"),
        ("this is a bug", "ZeroDivisionError: a bug of the encoder"),
    ],
)
def test_document_that_fails_is_rejected_with_the_reason_and_its_block_stays(
    build_job: Any, write_lines: Any, text: str, reason: str
) -> None:
    records = [{"text": TEXTS[0]}, {"id": "bad", "text": text}, {"text": TEXTS[2]}, "no json"]
    job = build_job(source=write_lines(records, name="mixed.jsonl"))
    summary = run_bulk(job, run_here)
    assert (summary.documents, summary.rejected) == (2, 2)
    assert [row["place"] for row in rows_of(job.output)] == ["mixed.jsonl:1", "mixed.jsonl:3"]
    bad, broken = BulkFolder(job.output).rejected()
    assert (bad.id, bad.place, bad.reason) == ("bad", "mixed.jsonl:2", reason)
    assert broken.place == "mixed.jsonl:4"


def test_blocks_without_a_good_document_are_done_unless_all_are(
    build_job: Any, write_lines: Any
) -> None:
    job = build_job(source=write_lines(["{", "{", "{", {"text": TEXTS[0]}], name="some.jsonl"))
    assert run_bulk(job, run_here).documents == 1
    assert run_bulk(job, run_here).resumed == 2
    job = build_job("none", source=write_lines(["{", "{"], name="bad.jsonl"))
    with pytest.raises(InputError, match=r"2 rejected, the first, bad\.jsonl:1: not JSON"):
        run_bulk(job, run_here)


def test_memories_without_source_hold_no_text(build_job: Any) -> None:
    job = build_job(keep_source=False, verify=False)
    run_bulk(job, run_here)
    row = rows_of(job.output)[0]
    assert memory_from_bytes(row["memory"], where=row["id"]).documents[0].source is None
    assert row.get("fidelity") is None


@pytest.mark.parametrize(
    "change", [{}, {"ratio": 8.0}, {"verify": False}, {"block_size": 4}, {"keep_source": False}]
)
def test_folder_of_another_run_is_refused(
    build_job: Any, documents: Path, change: dict[str, Any]
) -> None:
    run_bulk(build_job(), run_here)
    if not change:
        documents.write_text('{"text": "other input"}\n', encoding="utf-8")
    with pytest.raises(ResultConflictError, match="another bulk run"):
        run_bulk(build_job(**change), run_here)


def test_folder_with_other_files_is_refused_and_left_alone(build_job: Any) -> None:
    job = build_job()
    folder = job.output
    folder.mkdir()
    (folder / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(InputError, match="not empty"):
        run_bulk(job, run_here)
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_blocks_that_no_worker_finished_are_named(build_job: Any) -> None:
    job = build_job()

    def lose_the_second(work: Any, blocks: Any) -> Any:
        return run_here(work, [block for block in blocks if block.index != 1])

    with pytest.raises(WorkerError, match=r"1 of 4 blocks missing.*docs\.jsonl, document 4"):
        run_bulk(job, lose_the_second)
    assert len(rows_of(job.output)) == 7
    assert run_bulk(job, run_here).documents == 10


def test_memories_are_those_of_the_engine(build_job: Any, engine: Any) -> None:
    """With the tiny model: what the engine gives for the texts of a block."""
    job = build_job(encoder=lambda: engine, block_size=10)
    run_bulk(job, run_here)
    names = [f"doc-{i}" for i in range(10)]
    expected = engine.compress_many(TEXTS, names=names, ratio=4.0)
    assert [row["memory"] for row in rows_of(job.output)] == [memory_bytes(m) for m in expected]
