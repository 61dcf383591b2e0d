import json

import numpy as np
import pytest

from icae.data.build_config import BuildConfig, SourceConfig
from icae.data.chunks import Tools, read_chunks, write_chunks
from icae.data.cleaning import CleaningConfig
from icae.data.contamination import NgramIndex
from icae.data.corpus import CorpusDocument
from icae.data.dedup import DedupConfig, Sketcher


class LengthTokenizer:
    """One token a word: its length."""

    def __init__(self, size=100):
        self.size = size

    def __len__(self):
        return self.size

    def __call__(self, texts, /, *, add_special_tokens, **options):
        assert add_special_tokens is False
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}


SECRET = " ".join(f"secret{i}" for i in range(12))


@pytest.fixture
def tools():
    config = BuildConfig(
        sources=(SourceConfig(name="a", paths=("a",), weight=1),),
        min_tokens=3,
        chunk_characters=40,
        cleaning=CleaningConfig(min_characters=4, min_letters=0.1, min_compressed=0),
    )
    return Tools(
        config=config,
        tokenizer=LengthTokenizer(),
        sketcher=Sketcher(DedupConfig(), seed=0),
        index=NgramIndex([SECRET], n=12),
    )


def documents(*texts):
    return iter([CorpusDocument(text=text, source="a") for text in texts])


def written(prefix, tools, *texts):
    for _ in write_chunks(documents(*texts), prefix, tools):
        pass
    return read_chunks(prefix)


def test_reasons_are_counted(tmp_path, tools):
    texts = ["no", "1 2 3 4 5 6", "two words", SECRET, f"a b c\n\n{SECRET}\n\n" + "d e f " * 9]
    chunks = written(tmp_path / "0", tools, *texts)
    counts = {}
    for chunk in chunks:
        for reason, count in chunk.counts.items():
            counts[reason] = counts.get(reason, 0) + count
    assert counts["read"] == 5
    assert (counts["short"], counts["letters"], counts["few_tokens"]) == (1, 1, 1)
    assert (counts["contaminated"], counts["trimmed"], counts["overlaps"]) == (1, 1, 2)
    assert counts["characters"] == sum(map(len, texts))


def test_chunks_close_by_size_and_the_last_one_says_so(tmp_path, tools):
    chunks = written(tmp_path / "0", tools, *(["one two three four"] * 7))
    assert [chunk.counts["read"] for chunk in chunks] == [3, 3, 1]
    assert [chunk.last for chunk in chunks] == [False, False, True]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0-0000", "0-0001", "0-0002"]


def test_chunk_that_ends_with_the_file_is_the_last_one(tmp_path, tools):
    chunks = written(tmp_path / "0", tools, *(["one two three four"] * 3))
    assert [chunk.last for chunk in chunks] == [True]


def test_parts_of_chosen_documents_come_back(tmp_path, tools):
    text = f"a bb ccc\n\n{SECRET}\n\ndddd eeeee ffffff g h i j k l m n o p"
    (chunk,) = written(tmp_path / "0", tools, "one two three", text)
    keys, signatures, tokens = chunk.documents()
    assert (keys.shape, signatures.shape, tokens.tolist()) == ((2, 2), (2, 64), [3, 16])
    both = chunk.parts(np.array([True, True]), tools.token_dtype)
    assert [ids.tolist()[:3] for ids in both] == [[3, 3, 5], [1, 2, 3], [4, 5, 6]]
    first = chunk.parts(np.array([True, False]), tools.token_dtype)
    assert [ids.tolist() for ids in first] == [[3, 3, 5]]


def test_empty_file_gives_one_empty_chunk(tmp_path, tools):
    (chunk,) = written(tmp_path / "0", tools)
    assert chunk.last
    assert len(chunk.documents()[0]) == 0
    assert list(chunk.parts(np.zeros(0, dtype=bool), tools.token_dtype)) == []


def test_finished_file_is_not_read_again(tmp_path, tools):
    written(tmp_path / "0", tools, "one two three")

    def unreadable():
        raise AssertionError("read again")
        yield

    assert list(write_chunks(unreadable(), tmp_path / "0", tools)) == []


def test_half_written_chunk_is_replaced(tmp_path, tools):
    partial = tmp_path / ".0-0000.partial"
    partial.mkdir()
    (partial / "tokens.bin").write_bytes(b"junk")
    (chunk,) = written(tmp_path / "0", tools, "one two three")
    assert (chunk.folder / "tokens.bin").stat().st_size == 6
    assert json.loads((chunk.folder / "chunk.json").read_text())["last"] is True


@pytest.mark.parametrize(("size", "width"), [(65_536, 2), (65_537, 4)])
def test_width_of_a_token_follows_the_vocabulary(tmp_path, tools, size, width):
    wide = Tools(**{**vars(tools), "tokenizer": LengthTokenizer(size)})
    (chunk,) = written(tmp_path / "0", wide, "one two three")
    assert (chunk.folder / "tokens.bin").stat().st_size == 3 * width
