import gzip
import json
import lzma
from itertools import islice
from pathlib import Path

import pytest
import zstandard

from icae.data.corpus import CorpusDocument, batched, read_corpus
from icae.errors import InputError

REAL = Path(__file__).resolve().parents[4] / "shared" / "data"
COMPRESS = {".xz": lzma.compress, ".gz": gzip.compress, ".zst": zstandard.compress}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def read(*paths, **options):
    return list(read_corpus(list(paths), **options))


def test_json_lines_become_documents_named_after_the_file(tmp_path):
    file = tmp_path / "wikipedia-0.jsonl"
    file.write_text(lines({"text": "One é.", "title": "T", "src": "x"}, {"text": "Two."}))
    assert read(file) == [
        CorpusDocument(text="One é.", source="wikipedia-0", title="T"),
        CorpusDocument(text="Two.", source="wikipedia-0"),
    ]


@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_text_file_is_one_document_kept_as_it_is(tmp_path, suffix):
    file = tmp_path / f"notes{suffix}"
    file.write_text("# A\n\n  b\n")
    assert read(file) == [CorpusDocument(text="# A\n\n  b\n", source="notes")]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_compressed_file_reads_like_the_plain_one(tmp_path, suffix, name):
    plain = tmp_path / name
    plain.write_text(lines(*({"text": f"document {i} é"} for i in range(9000))))
    packed = tmp_path / f"{name}{suffix}"
    packed.write_bytes(COMPRESS[suffix](plain.read_bytes()))
    assert read(packed) == read(plain)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_archive_of_several_parts_is_read_to_the_end(tmp_path, suffix):
    file = tmp_path / f"a.jsonl{suffix}"
    parts = [COMPRESS[suffix](lines({"text": text}).encode()) for text in ("one", "two", "three")]
    file.write_bytes(b"".join(parts))
    assert [document.text for document in read(file)] == ["one", "two", "three"]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_truncated_archive_is_refused(tmp_path, suffix):
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(COMPRESS[suffix](b"some words\n" * 5000)[:-9])
    with pytest.raises(InputError, match="damaged archive"):
        read(file)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_file_that_is_no_archive_is_refused(tmp_path, suffix):
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(b"plain words")
    with pytest.raises(InputError, match="damaged archive"):
        read(file)


def test_malformed_json_names_file_and_line(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(lines({"text": "x"}) + "\n{broken\n")
    with pytest.raises(InputError, match=r"Line 3 of .*a\.jsonl"):
        read(file)


@pytest.mark.parametrize(
    ("record", "reason"),
    [({"title": "t"}, "no field 'text'"), ({"text": 5}, "text is a int"), ([1], "got: .* a list")],
)
def test_line_without_text_names_file_and_line(tmp_path, record, reason):
    file = tmp_path / "a.jsonl"
    file.write_text(lines({"text": "x"}, record))
    with pytest.raises(InputError, match=r"Line 2 of .*a\.jsonl(.|\n)*" + reason):
        read(file)


def test_blank_documents_are_skipped(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines({"text": " \n"}, {"text": "x"}))
    (tmp_path / "b.txt").write_text("\n")
    assert [document.text for document in read(tmp_path)] == ["x"]


def test_text_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"caf\xe9 au lait")
    with pytest.raises(InputError, match="not UTF-8"):
        read(file)


def test_folder_gives_its_corpus_files_in_order_of_name(tmp_path):
    for name in ("b.txt", "a.md", "sub/c.txt", "image.png", ".hidden.txt", ".git/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [document.text for document in read(tmp_path)] == ["a.md", "b.txt", "sub/c.txt"]


def test_folder_without_a_corpus_file_is_refused(tmp_path):
    (tmp_path / "image.png").write_bytes(b"x")
    with pytest.raises(InputError, match="holds no corpus file"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a", "a.xz"])
def test_named_file_of_another_type_is_refused(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match="not a corpus"):
        read(tmp_path / name)


def test_missing_path_is_refused_before_any_document_is_given(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="missing"):
        next(read_corpus([tmp_path / "a.txt", tmp_path / "b.txt"]))


@pytest.mark.parametrize("limit", [0, 1, 3, 9])
def test_limit_counts_documents_over_all_files(tmp_path, limit):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(lines({"text": "1"}, {"text": "2"}))
    assert len(read(tmp_path, limit_documents=limit)) == min(limit, 4)


def test_reading_is_lazy(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(lines({"text": "first"}) + "{broken\n")
    assert next(read_corpus([file])).text == "first"


def test_batches_close_by_number_and_by_size():
    documents = [CorpusDocument(text="x" * size, source="s") for size in (1, 1, 1, 50, 1, 1)]
    groups = batched(documents, most=3, characters=40)
    assert [[len(one.text) for one in group] for group in groups] == [[1, 1, 1], [50], [1, 1]]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"REAL CORPUS NOT CHECKED: {REAL} is not there")
@pytest.mark.parametrize("name", ["wikipedia-0", "books_public_domain", "peps"])
def test_real_corpus_is_read(name):
    documents = list(islice(read_corpus([REAL / "pretrain" / f"{name}.jsonl.xz"]), 3))
    assert [document.source for document in documents] == [name] * 3
    assert all(document.title and len(document.text) > 100 for document in documents)
