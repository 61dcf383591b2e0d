import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from icae.data.build import build
from icae.data.build_config import BuildConfig, SourceConfig
from icae.data.contamination import ContaminationConfig
from icae.data.shards import ShardSet
from icae.errors import InputError

SIDES = ("train", "validation")


def story(seed, words):
    draw = random.Random(seed)
    return " ".join(f"word{draw.randrange(9000)}" for _ in range(words))


def write_corpus(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


SECRET = story("secret", 30)


@pytest.fixture
def config(tmp_path):
    """Two sources of 80 and 24 documents with everything in them that has to go."""
    folder = tmp_path / "in"
    folder.mkdir()
    web = [story(f"web{i}", 60 + i % 50) for i in range(80)]
    web[10] = web[3].upper()
    web[20] = web[3].replace("word", "w", 1)
    web[30] = "too short"
    web[35] = story("figures", 60).replace("word", "")
    web[40] = f"{story('head', 50)}\n\n{SECRET}\n\n{story('tail', 50)}"
    web[45] = story("few", 40).replace(" ", "")
    web[50] = SECRET
    books = [story(f"book{i}", 200 + 10 * i) for i in range(24)]
    books[5] = web[7]
    write_corpus(folder / "web-0.jsonl", web[:55])
    write_corpus(folder / "web-1.jsonl", web[55:])
    write_corpus(folder / "books.jsonl", books)
    write_corpus(folder / "eval.jsonl", [SECRET])
    paths = (str(folder / "web-0.jsonl"), str(folder / "web-1.jsonl"))
    return BuildConfig(
        sources=(
            SourceConfig(name="web", paths=paths, weight=3, repeat=2),
            SourceConfig(name="books", paths=(str(folder / "books.jsonl"),), weight=2),
        ),
        validation_share=0.1,
        contamination=ContaminationConfig(against=(str(folder / "eval.jsonl"),)),
    )


@pytest.fixture
def run(config, make_tokenizer, tmp_path):
    """Build into a folder; other settings and a tokenizer may be given."""

    def build_into(name="out", *, tokenizer=None, digest="t", on_progress=print, **changes):
        return build(
            replace(config, **changes),
            tokenizer or make_tokenizer(),
            tmp_path / name,
            tokenizer_hash=digest,
            on_progress=on_progress,
        )

    return build_into


@pytest.fixture
def result(tmp_path):
    """Every byte of the shards, and the report without its times."""

    def read(name="out"):
        folder = tmp_path / name
        files = [path for side in SIDES for path in (folder / side).iterdir()]
        report = json.loads((folder / "report.json").read_text())
        assert report.pop("seconds")["documents"] >= 0
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}, report

    return read


@pytest.fixture
def documents(tmp_path):
    """The token ids of every document of a side."""

    def read(side, name="out"):
        shards = ShardSet.open(tmp_path / name / side)
        return [tuple(shards.read(*pair)) for pair in pairwise(shards.bounds.tolist())]

    return read


def test_every_document_is_accounted_for(run, tmp_path):
    report = run()
    web, books = report.sources
    assert (web.read, books.read) == (80, 24)
    assert all(one.read == one.kept + sum(one.dropped.values()) for one in report.sources)
    assert {reason: count for reason, count in web.dropped.items() if count} == {
        **{"short": 1, "letters": 1, "contaminated": 1},
        **{"few_tokens": 1, "exact": 1, "near": 1},
    }
    assert books.dropped["exact"] == 1
    assert (web.trimmed, web.overlaps) == (1, 2)
    assert report.evaluation_ngrams == 19
    text = (tmp_path / "out" / "report.md").read_text()
    assert all(f"| {one.name} | {one.kept_tokens:,} |" in text for one in report.sources)
    assert all(file.sha256 and file.sha256 in text for file in report.identity.inputs)


def test_shares_are_reached_and_small_sources_repeated(run, tmp_path):
    report = run()
    shards = ShardSet.open(tmp_path / "out" / "train")
    web, books = report.sources
    assert dict(shards.sources) == {"web": web.train_tokens, "books": books.train_tokens}
    assert (web.share_wanted, web.share_reached) == (0.6, pytest.approx(0.6, abs=0.01))
    assert (books.copies, 1 < web.copies < 2) == (pytest.approx(1, abs=0.05), True)
    assert report.tokens == shards.tokens
    assert (web.missing_tokens, books.missing_tokens) == (0, 0)


def test_sides_share_no_document_and_hold_no_evaluation_text(run, documents, word_tokenizer):
    run()
    train, validation = (documents(side) for side in SIDES)
    assert validation
    assert not set(train) & set(validation)
    assert len(validation) == len(set(validation))
    secret = tuple(word_tokenizer.token(word) for word in SECRET.split()[5:17])
    for ids in (*train, *validation):
        assert not any(ids[i : i + 12] == secret for i in range(len(ids)))


def test_same_seed_gives_the_same_bytes(run, result):
    run("a")
    run("b")
    run("c", seed=1)
    assert result("a") == result("b")
    assert result("a")[0] != result("c")[0]


def test_order_of_documents_does_not_move_them_between_the_sides(run, documents, tmp_path):
    run("a")
    path = tmp_path / "in" / "books.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    run("b")
    for side in SIDES:
        assert sorted(documents(side, "a")) == sorted(documents(side, "b"))


def test_stopped_build_leaves_nothing_and_begins_again(run, make_tokenizer, tmp_path):
    with pytest.raises(RuntimeError, match="stopped"):
        run(tokenizer=make_tokenizer(fail_at=1))
    assert [path.name for path in tmp_path.iterdir() if path.name != "in"] == ["out"]
    assert run().tokens


def test_folder_with_other_files_is_refused_and_kept(run, tmp_path):
    file = tmp_path / "out" / "mine.txt"
    file.parent.mkdir(parents=True)
    file.write_text("x")
    with pytest.raises(InputError, match="in use"):
        run()
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [file]


def test_source_too_small_for_the_budget_is_reported(run, tmp_path):
    books = run(tokens=40_000).sources[1]
    assert books.missing_tokens == 16_000 - books.train_tokens
    assert "books is too small" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("texts", [[], ["short", "shorter"]])
def test_source_without_any_usable_document_is_named(run, tmp_path, texts):
    write_corpus(tmp_path / "in" / "books.jsonl", texts)
    with pytest.raises(InputError, match=r"no document left(.|\n)*books"):
        run()
