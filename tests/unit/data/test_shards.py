import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.data.corpus import CorpusDocument
from icae.data.shards import ShardSet, ShardWriter, pack
from icae.errors import InputError


def write(folder, documents=([1, 2, 3], [4, 5, 6, 7]), *, vocab_size=100, shard_tokens=3):
    with ShardWriter(
        folder, vocab_size=vocab_size, tokenizer_hash="t0", shard_tokens=shard_tokens
    ) as writer:
        for ids in documents:
            writer.add(ids, source="a")
    return ShardSet.open(folder)


@settings(max_examples=30, deadline=None)
@given(
    documents=st.lists(
        st.lists(st.integers(0, 69_999), min_size=1, max_size=20), min_size=1, max_size=8
    ),
    shard_tokens=st.integers(1, 9),
)
def test_documents_come_back_across_file_borders(documents, shard_tokens):
    with tempfile.TemporaryDirectory() as folder:
        shards = write(Path(folder, "s"), documents, vocab_size=70_000, shard_tokens=shard_tokens)
        bounds = shards.bounds.tolist()
        for ids, start, end in zip(documents, bounds[:-1], bounds[1:], strict=True):
            assert shards.read(start, end).tolist() == ids
            for offset in range(start, end):
                assert shards.document_at(offset) == (start, end)
        everything = [token for ids in documents for token in ids]
        assert shards.read(0, shards.tokens).tolist() == everything
        files = list(shards.folder.glob("tokens-*.bin"))
        assert len(files) == -(-len(everything) // shard_tokens)


def test_index_counts_tokens_by_source_and_names_the_tokenizer(tmp_path):
    with ShardWriter(tmp_path / "s", vocab_size=9, tokenizer_hash="t1", created_by="us") as writer:
        writer.add([1, 2], source="a")
        writer.add([3], source="b")
        writer.add([4], source="a")
    shards = ShardSet.open(tmp_path / "s")
    index = json.loads((tmp_path / "s/index.json").read_text())
    assert (shards.tokens, shards.documents, shards.vocab_size) == (4, 3, 9)
    assert (shards.tokenizer_hash, dict(shards.sources)) == ("t1", {"a": 3, "b": 1})
    assert index["sources"]["a"] == {"documents": 2, "tokens": 3}
    assert index["created_by"] == "us"


@pytest.mark.parametrize(
    ("vocab_size", "data"), [(65_536, b"\xfe\xff\xff\xff"), (65_537, b"\xff\xff\0\0\0\0\1\0")]
)
def test_tokens_are_little_endian_and_as_wide_as_the_vocabulary(tmp_path, vocab_size, data):
    write(tmp_path / "s", [[vocab_size - 2, vocab_size - 1]], vocab_size=vocab_size)
    assert (tmp_path / "s/tokens-00000.bin").read_bytes() == data


def test_read_is_bounded_by_the_set(tmp_path):
    shards = write(tmp_path / "s")
    assert shards.read(2, 5).dtype == np.int64
    assert shards.read(7, 7).tolist() == []
    for start, end in ((-1, 2), (3, 2), (0, 8)):
        with pytest.raises(InputError, match=r"within 0\.\.7"):
            shards.read(start, end)
    for offset in (-1, 7):
        with pytest.raises(InputError, match="offset < 7"):
            shards.document_at(offset)


@pytest.mark.parametrize(
    "documents", [[[-1]], [[1, 2, 3, 4], [100]], [[]], [[[1, 2]]], pytest.param([], id="none")]
)
def test_documents_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path, documents):
    with pytest.raises(InputError, match="cannot take that"):
        write(tmp_path / "s", documents)
    assert list(tmp_path.iterdir()) == []


def test_empty_target_is_taken_and_one_in_use_refused_and_kept(tmp_path):
    (tmp_path / "s").mkdir()
    write(tmp_path / "s")
    with pytest.raises(InputError, match="not an empty folder"):
        write(tmp_path / "s", [[9]])
    assert ShardSet.open(tmp_path / "s").tokens == 7


def test_target_that_came_into_use_meanwhile_is_kept(tmp_path):
    def write_what_was_written_meanwhile():
        with ShardWriter(tmp_path / "s", vocab_size=9, tokenizer_hash="t") as writer:
            writer.add([1], source="a")
            assert not (tmp_path / "s").exists()
            write(tmp_path / "s")

    with pytest.raises(InputError, match="not an empty folder"):
        write_what_was_written_meanwhile()
    assert ShardSet.open(tmp_path / "s").tokens == 7
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    "name", ["index.json", "documents.npy", "tokens-00001.bin", "tokens-00002.bin"]
)
def test_missing_or_truncated_file_is_refused_by_name(tmp_path, name):
    write(tmp_path / "s")
    file = tmp_path / "s" / name
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(InputError):
        ShardSet.open(tmp_path / "s")
    file.unlink()
    with pytest.raises(InputError, match=name):
        ShardSet.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("format", "other", "format 'other'"),
        ("version", 2, "version 2"),
        ("tokens", 8, "contradicts"),
        ("dtype", "float16", "contradicts"),
        ("documents", 3, "does not fit"),
        ("shards", [{"name": "../x", "tokens": 7, "sha256": ""}], "leaves the folder"),
        ("shards", [{"file": "x"}], "unexpected keyword"),
        ("sources", None, "NoneType"),
        ("tokenizer_hash", ..., "without 'tokenizer_hash'"),
    ],
)
def test_wrong_index_is_refused(tmp_path, key, value, reason):
    write(tmp_path / "s")
    path = tmp_path / "s/index.json"
    index = {**json.loads(path.read_text()), key: value}
    path.write_text(json.dumps({name: one for name, one in index.items() if one is not ...}))
    with pytest.raises(InputError, match=reason):
        ShardSet.open(tmp_path / "s")


@pytest.mark.parametrize("bounds", [[0, 3, 3], [1, 3, 7], [0, 8, 7], [0, 3, 6]])
def test_wrong_document_bounds_are_refused(tmp_path, bounds):
    write(tmp_path / "s")
    np.save(tmp_path / "s/documents.npy", np.array(bounds, dtype=np.int64))
    with pytest.raises(InputError, match=r"documents\.npy does not increase"):
        ShardSet.open(tmp_path / "s")


def test_pack_tokenizes_in_batches_without_special_tokens(tmp_path, word_tokenizer):
    documents = [CorpusDocument(text="a bb ccc", source=f"s{i % 2}") for i in range(5)]
    progress = []
    shards = pack(
        documents,
        word_tokenizer,
        tmp_path / "s",
        tokenizer_hash="t",
        batch=2,
        min_tokens=1,
        on_progress=lambda *counts: progress.append(counts),
    )
    assert word_tokenizer.calls == [2, 2, 1]
    assert progress == [(2, 6), (4, 12), (5, 15)]
    assert shards.read(3, 6).tolist() == [word_tokenizer.token(word) for word in ["a", "bb", "ccc"]]
    assert (shards.vocab_size, dict(shards.sources)) == (60_000, {"s0": 9, "s1": 6})


def test_pack_leaves_out_short_documents(tmp_path, word_tokenizer):
    documents = [CorpusDocument(text=text, source="s") for text in ("a", "a bb", "", "a bb ccc")]
    shards = pack(documents, word_tokenizer, tmp_path / "s", tokenizer_hash="t", min_tokens=2)
    assert shards.bounds.tolist() == [0, 2, 5]
