import json
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from itertools import pairwise

import filelock
import pytest

from icae.data.build import build
from icae.data.build_config import BuildConfig, SourceConfig
from icae.data.cleaning import CleaningConfig
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
    web[35] = "1 2 3 4 5 6 " * 10
    web[40] = f"{story('head', 50)}\n\n{SECRET}\n\n{story('tail', 50)}"
    web[45] = "fewtokens" * 20
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
        chunk_characters=12_000,
        cleaning=CleaningConfig(min_characters=100, min_compressed=0),
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
def stop(run, make_tokenizer):
    """Start a build that stops at a call of the tokenizer."""

    def at(calls, name="out"):
        with pytest.raises(RuntimeError, match="stopped"):
            run(name, tokenizer=make_tokenizer(fail_at=calls))

    return at


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


def test_same_seed_gives_the_same_bytes_whatever_the_chunks(run, result):
    run("a")
    run("b")
    run("c", seed=1)
    run("d", chunk_characters=10**9)
    assert result("a") == result("b")
    assert result("a")[0] != result("c")[0]
    assert result("a")[0] == result("d")[0]


def test_order_of_documents_does_not_move_them_between_the_sides(run, documents, tmp_path):
    run("a")
    path = tmp_path / "in" / "books.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    run("b")
    for side in SIDES:
        assert sorted(documents(side, "a")) == sorted(documents(side, "b"))


@pytest.mark.parametrize("calls", [0, 1, 4, 7])
def test_build_that_failed_while_reading_goes_on_to_the_same_bytes(
    run, stop, result, make_tokenizer, tmp_path, calls
):
    whole, rest = make_tokenizer(), make_tokenizer()
    run("whole", tokenizer=whole)
    stop(calls)
    assert not (tmp_path / "out" / "report.json").exists()
    run(tokenizer=rest)
    assert result() == result("whole")
    assert not (tmp_path / "out" / "work").exists()
    assert len(rest.calls) == len(whole.calls) - calls, "a finished chunk is not read again"


class KilledAt:
    """Progress that kills the process at its n-th line, as `kill -9` would."""

    def __init__(self, lines):
        self.left = lines

    def __call__(self, text):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_build_killed_again_and_again_ends_with_the_same_bytes(run, result, tmp_path):
    lines = []
    run("whole", on_progress=lines.append)
    assert lines[-1] == "Packing validation: books"
    fork = multiprocessing.get_context("fork")
    for at in (0, 3, 2, 5, 1, 20, 60, 95):
        child = fork.Process(target=run, kwargs={"on_progress": KilledAt(at)})
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    run()
    assert result() == result("whole")
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["report.json", "report.md", "train", "validation"]


def test_build_stopped_between_its_two_sides_goes_on_to_the_same_bytes(run, result, tmp_path):
    def interrupt(text):
        if text.startswith("Packing validation"):
            raise KeyboardInterrupt

    run("whole")
    with pytest.raises(KeyboardInterrupt):
        run(on_progress=interrupt)
    assert (tmp_path / "out" / "train").exists()
    run()
    assert result() == result("whole")


def test_finished_build_is_left_as_it_is(run, make_tokenizer, tmp_path):
    report = run()
    (tmp_path / "out" / "work").mkdir()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "train").iterdir()}
    assert run(tokenizer=make_tokenizer(fail_at=0)) == report
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert not (tmp_path / "out" / "work").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_and_inputs_are_refused_in_the_same_folder(run, stop, tmp_path, finished):
    if finished:
        run()
    else:
        stop(3)
    with pytest.raises(InputError, match="another configuration"):
        run(seed=1)
    with pytest.raises(InputError, match="another tokenizer"):
        run(digest="u")
    write_corpus(tmp_path / "in" / "books.jsonl", ["something else"])
    with pytest.raises(InputError, match=r"another content of .*books\.jsonl"):
        run()


@pytest.mark.parametrize("name", ["mine.txt", "work/thesis.txt", "report.json"])
def test_folder_with_other_files_is_refused_and_kept(run, tmp_path, name):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("x")
    with pytest.raises(InputError, match=r"other files|not that of a build"):
        run()
    assert file.read_text() == "x"
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [file]


def test_second_process_in_the_same_folder_is_refused(run, stop, tmp_path):
    stop(3)
    lock = filelock.FileLock(tmp_path / "out" / "work" / "lock")
    with lock, pytest.raises(InputError, match="another process"):
        run()


def test_source_too_small_for_the_budget_is_reported(run, tmp_path):
    books = run(tokens=40_000).sources[1]
    assert books.missing_tokens == 16_000 - books.train_tokens
    assert "books is too small" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("texts", [[], ["short", "shorter"]])
def test_source_without_any_usable_document_is_named(run, tmp_path, texts):
    write_corpus(tmp_path / "in" / "books.jsonl", texts)
    with pytest.raises(InputError, match=r"no document left(.|\n)*books"):
        run()
