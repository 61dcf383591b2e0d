import sys

import pytest

from icae.data.corpus import CorpusDocument, read_corpus
from icae.errors import InputError, MissingDependencyError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path, **columns):
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)


def test_rows_of_all_row_groups_become_documents(tmp_path):
    texts = [f"text {i} é" for i in range(7)]
    write(tmp_path / "wiki.parquet", text=texts, title=["T"] * 7, other=list(range(7)))
    assert list(read_corpus([tmp_path / "wiki.parquet"])) == [
        CorpusDocument(text=text, source="wiki", title="T") for text in texts
    ]


def test_title_is_optional_and_empty_rows_are_skipped(tmp_path):
    write(tmp_path / "a.parquet", text=["one", None, " ", "two"])
    assert [(one.text, one.title) for one in read_corpus([tmp_path])] == [
        ("one", None),
        ("two", None),
    ]


def test_rows_are_read_batch_by_batch(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", text=[f"text {i}" for i in range(1000)])
    stream = read_corpus([tmp_path / "a.parquet"])
    assert next(stream).text == "text 0"
    stream.close()


@pytest.mark.parametrize("columns", [{"body": ["x"]}, {"text": [1, 2]}])
def test_file_without_a_text_column_is_refused(tmp_path, columns):
    write(tmp_path / "a.parquet", **columns)
    with pytest.raises(InputError, match="column 'text'"):
        list(read_corpus([tmp_path / "a.parquet"]))


def test_damaged_file_is_refused(tmp_path):
    write(tmp_path / "a.parquet", text=["x" * 100] * 50)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        list(read_corpus([tmp_path / "a.parquet"]))


def test_missing_pyarrow_is_explained(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", text=["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        list(read_corpus([tmp_path / "a.parquet"]))


def test_compressed_parquet_is_refused(tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="not a corpus"):
        next(read_corpus([tmp_path / "a.parquet.gz"]))
