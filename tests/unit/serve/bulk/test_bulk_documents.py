from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icae.errors import InputError
from icae.serve.bulk.documents import BulkDocument, Rejected, cut_blocks, list_files, read_block

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


def read_all(source: Path, size: int = 3) -> tuple[list[BulkDocument], list[Rejected]]:
    blocks = [read_block(block) for block in cut_blocks(list_files(source), size=size)]
    return [d for read, _ in blocks for d in read], [r for _, lost in blocks for r in lost]


def test_lines_are_documents_with_their_id_or_their_place(write_lines: Any) -> None:
    lines = [{"id": "a", "text": "one"}, {"text": "two"}, {"id": 7, "text": "three"}]
    unusable = [r'{"id": "\ud800", "text": "four"}', '{"id": "", "text": "five"}']
    documents, _ = read_all(write_lines([*lines, *unusable]))
    assert [d.id for d in documents] == ["a", "docs.jsonl:2", "7", "docs.jsonl:4", "docs.jsonl:5"]
    assert [d.text for d in documents] == ["one", "two", "three", "four", "five"]
    assert [d.place for d in documents] == [f"docs.jsonl:{n}" for n in range(1, 6)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "not JSON"),
        (b'["a list"]', "a JSON list instead of an object"),
        (b'{"id": "b"}', "no field 'text'"),
        (b'{"text": 4}', "text is a int"),
        (b'{"text": "  "}', "the text is blank"),
        (b'{"text": "\xff"}', "not UTF-8"),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_bad_line_is_rejected_with_the_reason_and_the_others_stay(
    tmp_path: Path, line: bytes, reason: str, packed: str
) -> None:
    path = tmp_path / f"docs.jsonl{packed}"
    lines = b'{"text": "before"}\n' + line + b'\n\n{"text": "after"}\n'
    path.write_bytes(PACKED[packed](lines))
    documents, (rejected,) = read_all(path)
    assert [d.text for d in documents] == ["before", "after"]
    assert rejected.place == f"{path.name}:2"
    assert reason in rejected.reason


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    size=st.integers(1, 7),
    packed=st.sampled_from(sorted(PACKED)),
)
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_blocks_hold_every_document_once_in_order(
    tmp_path: Path, lengths: list[int], size: int, packed: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    wanted = []
    for number, length in enumerate(lengths):
        texts = [f"{number} ä {row}" * (row + 1) for row in range(length)]
        wanted += texts
        data = "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts).encode()
        (folder / f"{number}.jsonl{packed}").write_bytes(PACKED[packed](data))
    blocks = cut_blocks(list_files(folder), size=size)
    assert [block.documents for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert [block.index for block in blocks] == list(range(len(blocks)))
    assert [d.text for d in read_all(folder, size=size)[0]] == wanted


def test_parquet_rows_are_documents_across_row_groups(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = [f"row {i}" for i in range(7)] + [None]
    table = pyarrow.table({"id": [f"r{i}" for i in range(8)], "text": texts, "other": [0] * 8})
    parquet.write_table(table, tmp_path / "docs.parquet", row_group_size=3)
    documents, rejected = read_all(tmp_path / "docs.parquet", size=2)
    assert [d.text for d in documents] == texts[:-1]
    assert [d.id for d in documents] == [f"r{i}" for i in range(7)]
    assert [r.id for r in rejected] == ["r7"]


def test_folder_stands_for_the_documents_in_it_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("plain", encoding="utf-8")
    (folder / "sub" / "a.html").write_text("<html><p>page</p></html>", encoding="utf-8")
    (folder / "a.md").write_bytes(b"\xff\xfe\x00")
    (folder / "picture.png").write_bytes(b"")
    (folder / ".hidden.txt").write_text("hidden", encoding="utf-8")
    documents, rejected = read_all(folder)
    assert [(d.id, d.text) for d in documents] == [("b.txt", "plain"), ("sub/a.html", "page")]
    assert [r.id for r in rejected] == ["a.md"]


@pytest.mark.parametrize("name", ["missing.jsonl", "picture.png", "empty"])
def test_input_that_holds_no_documents_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        list_files(tmp_path / name)
