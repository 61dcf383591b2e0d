import gzip
import json
import lzma
import sys
from pathlib import Path

import pytest
import zstandard

from icae.data.corpus import CorpusDocument, read_corpus
from icae.errors import InputError, MissingDependencyError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

REAL = Path(__file__).resolve().parents[4] / "shared" / "data"
COMPRESS = {".xz": lzma.compress, ".gz": gzip.compress, ".zst": zstandard.compress}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def read(*paths, **options):
    return [(one.text, one.title) for one in read_corpus(list(paths), **options)]


def write_parquet(path, **columns):
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)


def test_json_lines_become_documents_named_after_the_file(tmp_path):
    file = tmp_path / "wikipedia-0.jsonl"
    records = ({"text": "One é.", "title": "T", "src": "x"}, {"text": " \n"}, {"text": "Two."})
    file.write_text(lines(*records))
    assert list(read_corpus([file])) == [
        CorpusDocument(text="One é.", source="wikipedia-0", title="T"),
        CorpusDocument(text="Two.", source="wikipedia-0"),
    ]


@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_text_file_is_one_document_kept_as_it_is(tmp_path, suffix):
    file = tmp_path / f"notes{suffix}"
    file.write_text("# A\n\n  b\n")
    assert list(read_corpus([file])) == [CorpusDocument(text="# A\n\n  b\n", source="notes")]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_compressed_file_of_several_parts_reads_like_the_plain_one(tmp_path, suffix, name):
    texts = [lines(*({"text": f"document {i} é"} for i in range(n))) for n in (9000, 1, 1)]
    (tmp_path / name).write_text("".join(texts))
    packed = tmp_path / f"{name}{suffix}"
    packed.write_bytes(b"".join(COMPRESS[suffix](text.encode()) for text in texts))
    assert read(packed) == read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"caf\xe9 au lait", "not UTF-8"),
        *((f"a.txt{suffix}", b"plain words", "damaged archive") for suffix in COMPRESS),
        *(
            (f"a.txt{suffix}", compress(b"some words\n" * 5000)[:-9], "damaged archive")
            for suffix, compress in COMPRESS.items()
        ),
    ],
)
def test_damaged_file_is_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", ""),
        ('{"title": "t"}', "no field 'text'"),
        ('{"text": 5}', "text is a int"),
        ("[1]", "got: .* a list"),
    ],
)
def test_line_that_cannot_be_used_names_file_and_number(tmp_path, line, reason):
    file = tmp_path / "a.jsonl"
    file.write_text(lines({"text": "x"}) + "\n" + line + "\n")
    stream = read_corpus([file])
    assert next(stream).text == "x", "reading is lazy"
    with pytest.raises(InputError, match=r"Line 3 of .*a\.jsonl(.|\n)*" + reason):
        next(stream)


def test_folder_gives_its_corpus_files_in_order_of_name(tmp_path):
    for name in ("b.txt", "a.md", "sub/c.txt", "image.png", ".hidden.txt", ".git/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [text for text, _ in read(tmp_path)] == ["a.md", "b.txt", "sub/c.txt"]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a", "a.xz", "a.parquet.gz"])
def test_file_of_another_type_is_refused_alone_and_in_a_folder(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match="not a corpus"):
        read(tmp_path / name)
    with pytest.raises(InputError, match="holds no corpus file"):
        read(tmp_path)


def test_missing_path_is_refused_before_any_document_is_given(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="missing"):
        next(read_corpus([tmp_path / "a.txt", tmp_path / "b.txt"]))


@pytest.mark.parametrize("limit", [0, 1, 3, 9])
def test_limit_counts_documents_over_all_files(tmp_path, limit):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(lines({"text": "1"}, {"text": "2"}))
    assert len(read(tmp_path, limit_documents=limit)) == min(limit, 4)


def test_rows_of_all_row_groups_of_a_parquet_file_become_documents(tmp_path):
    texts = [f"text {i} é" for i in range(7)]
    write_parquet(tmp_path / "wiki.parquet", text=texts, title=["T"] * 7, other=list(range(7)))
    assert list(read_corpus([tmp_path / "wiki.parquet"])) == [
        CorpusDocument(text=text, source="wiki", title="T") for text in texts
    ]
    write_parquet(tmp_path / "a.parquet", text=["no title", None, " ", "two"])
    assert read(tmp_path / "a.parquet") == [("no title", None), ("two", None)]


@pytest.mark.parametrize("columns", [{"body": ["x"]}, {"text": [1, 2]}, {"text": [["x"]]}])
def test_parquet_file_without_a_text_column_is_refused(tmp_path, columns):
    write_parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(InputError, match="column 'text'"):
        read(tmp_path / "a.parquet")


def test_damaged_parquet_file_is_refused(tmp_path):
    write_parquet(tmp_path / "a.parquet", text=["x" * 100] * 50)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "a.parquet")


def test_missing_package_is_explained(tmp_path, monkeypatch):
    write_parquet(tmp_path / "a.parquet", text=["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        read(tmp_path / "a.parquet")
