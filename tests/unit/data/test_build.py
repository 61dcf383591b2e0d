import hashlib
import json
import multiprocessing
import os
import random
import signal
from itertools import pairwise

import filelock
import pytest

from icae.data.build import build
from icae.data.build_config import BuildConfig, SourceConfig
from icae.data.cleaning import CleaningConfig
from icae.data.contamination import ContaminationConfig
from icae.data.shards import ShardSet
from icae.errors import InputError


class WordTokenizer:
    """One token a word: a hash of it. Can be made to fail at its n-th call."""

    def __init__(self, fail_at=None):
        self.calls_left = fail_at

    def __len__(self):
        return 60_000

    def __call__(self, texts, /, *, add_special_tokens, **options):
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise RuntimeError("stopped")
        return {"input_ids": [[token(word) for word in text.split()] for text in texts]}


def token(word):
    return int.from_bytes(hashlib.sha1(word.encode()).digest()[:4], "big") % 60_000


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
    web[40] = f"{story('head', 50)}\n\n{SECRET}\n\n{story('tail', 50)}"
    web[50] = SECRET
    books = [story(f"book{i}", 200 + 10 * i) for i in range(24)]
    books[5] = web[7]
    write_corpus(folder / "web-0.jsonl", web[:55])
    write_corpus(folder / "web-1.jsonl", web[55:])
    write_corpus(folder / "books.jsonl", books)
    write_corpus(folder / "eval.jsonl", [SECRET])
    return BuildConfig(
        sources=(
            SourceConfig(
                name="web",
                paths=(str(folder / "web-0.jsonl"), str(folder / "web-1.jsonl")),
                weight=3,
                repeat=2,
            ),
            SourceConfig(name="books", paths=(str(folder / "books.jsonl"),), weight=2),
        ),
        validation_share=0.1,
        chunk_characters=12_000,
        cleaning=CleaningConfig(min_characters=100),
        contamination=ContaminationConfig(against=(str(folder / "eval.jsonl"),)),
    )


def run(config, folder, tokenizer=None, **options):
    return build(config, tokenizer or WordTokenizer(), folder, tokenizer_hash="t", **options)


def result(folder):
    """Every byte of the shards, and the report without its times."""
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for side in ("train", "validation")
        for path in (folder / side).iterdir()
    }
    report = json.loads((folder / "report.json").read_text())
    assert report.pop("seconds")["documents"] >= 0
    return files, report


def documents(shards):
    bounds = shards.bounds.tolist()
    return [tuple(shards.read(*pair)) for pair in pairwise(bounds)]


def with_seed(config, seed):
    return BuildConfig(**{**vars(config), "seed": seed})


def test_every_document_is_accounted_for(config, tmp_path):
    report = run(config, tmp_path / "out")
    for source in report.sources:
        assert source.read == source.kept + sum(source.dropped.values())
    web, books = report.sources
    assert (web.read, books.read) == (80, 24)
    dropped = {reason: count for reason, count in web.dropped.items() if count}
    assert dropped == {"short": 1, "contaminated": 1, "exact": 1, "near": 1}
    assert books.dropped["exact"] == 1
    assert (web.trimmed, web.overlaps) == (1, 2)
    assert report.evaluation_ngrams == 19


def test_shares_are_reached_and_small_sources_repeated(config, tmp_path):
    report = run(config, tmp_path / "out")
    shards = ShardSet.open(tmp_path / "out" / "train")
    web, books = report.sources
    assert dict(shards.sources) == {"web": web.train_tokens, "books": books.train_tokens}
    assert (web.share_wanted, web.share_reached) == (0.6, pytest.approx(0.6, abs=0.01))
    assert (books.copies, 1 < web.copies < 2) == (pytest.approx(1, abs=0.05), True)
    assert report.tokens == shards.tokens
    assert (web.missing_tokens, books.missing_tokens) == (0, 0)


def test_no_document_is_on_both_sides_and_none_twice_in_validation(config, tmp_path):
    run(config, tmp_path / "out")
    train = documents(ShardSet.open(tmp_path / "out" / "train"))
    validation = documents(ShardSet.open(tmp_path / "out" / "validation"))
    assert validation
    assert not set(train) & set(validation)
    assert len(validation) == len(set(validation))


def test_evaluation_text_is_in_neither_side(config, tmp_path):
    run(config, tmp_path / "out")
    secret = [token(word) for word in SECRET.split()]
    for side in ("train", "validation"):
        for ids in documents(ShardSet.open(tmp_path / "out" / side)):
            assert not any(list(ids[i : i + 12]) == secret[5:17] for i in range(len(ids)))


def test_same_seed_gives_the_same_bytes_and_another_seed_others(config, tmp_path):
    run(config, tmp_path / "a")
    run(config, tmp_path / "b")
    run(with_seed(config, 1), tmp_path / "c")
    assert result(tmp_path / "a") == result(tmp_path / "b")
    assert result(tmp_path / "a")[0] != result(tmp_path / "c")[0]


def test_chunk_size_does_not_change_the_shards(config, tmp_path):
    run(config, tmp_path / "a")
    run(BuildConfig(**{**vars(config), "chunk_characters": 10**9}), tmp_path / "b")
    assert result(tmp_path / "a")[0] == result(tmp_path / "b")[0]


def test_order_of_documents_does_not_move_them_between_the_sides(config, tmp_path):
    run(config, tmp_path / "a")
    path = tmp_path / "in" / "books.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    run(config, tmp_path / "b")
    for side in ("train", "validation"):
        before, after = (documents(ShardSet.open(tmp_path / name / side)) for name in "ab")
        assert sorted(before) == sorted(after)


@pytest.mark.parametrize("calls", [0, 1, 4, 8])
def test_build_that_failed_while_reading_goes_on_to_the_same_bytes(config, tmp_path, calls):
    run(config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="stopped"):
        run(config, tmp_path / "out", WordTokenizer(fail_at=calls))
    assert not (tmp_path / "out" / "report.json").exists()
    run(config, tmp_path / "out")
    assert result(tmp_path / "out") == result(tmp_path / "whole")
    assert not (tmp_path / "out" / "work").exists()


def test_finished_chunks_are_not_tokenized_again(config, tmp_path):
    whole = WordTokenizer(fail_at=1000)
    run(config, tmp_path / "whole", whole)
    with pytest.raises(RuntimeError):
        run(config, tmp_path / "out", WordTokenizer(fail_at=8))
    rest = WordTokenizer(fail_at=1000)
    run(config, tmp_path / "out", rest)
    assert 1000 - rest.calls_left == (1000 - whole.calls_left) - 8


class KilledAt:
    """Progress that kills the process at its n-th line, as `kill -9` would."""

    def __init__(self, lines):
        self.left = lines

    def __call__(self, text):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_build_killed_again_and_again_ends_with_the_same_bytes(config, tmp_path):
    lines = []
    run(config, tmp_path / "whole", on_progress=lines.append)
    assert lines[-1] == "Packing validation: books"
    fork = multiprocessing.get_context("fork")
    for at in (0, 3, 2, 5, 1, 20, 60, 95):
        child = fork.Process(
            target=run, args=(config, tmp_path / "out"), kwargs={"on_progress": KilledAt(at)}
        )
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    run(config, tmp_path / "out")
    assert result(tmp_path / "out") == result(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("report.json", "report.md", "train", "validation")
    ]


def test_build_stopped_between_its_two_sides_goes_on_to_the_same_bytes(config, tmp_path):
    def stop(text):
        if text.startswith("Packing validation"):
            raise KeyboardInterrupt

    run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "out", on_progress=stop)
    assert (tmp_path / "out" / "train").exists()
    run(config, tmp_path / "out")
    assert result(tmp_path / "out") == result(tmp_path / "whole")


def test_finished_build_is_left_as_it_is(config, tmp_path):
    report = run(config, tmp_path / "out")
    (tmp_path / "out" / "work").mkdir()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "train").iterdir()}
    assert run(config, tmp_path / "out", WordTokenizer(fail_at=0)) == report
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert not (tmp_path / "out" / "work").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_in_the_same_folder(config, tmp_path, finished):
    if finished:
        run(config, tmp_path / "out")
    else:
        with pytest.raises(RuntimeError):
            run(config, tmp_path / "out", WordTokenizer(fail_at=3))
    with pytest.raises(InputError, match="another configuration"):
        run(with_seed(config, 1), tmp_path / "out")
    with pytest.raises(InputError, match="another tokenizer"):
        build(config, WordTokenizer(), tmp_path / "out", tokenizer_hash="u")


def test_input_changed_meanwhile_is_refused_by_name(config, tmp_path):
    with pytest.raises(RuntimeError):
        run(config, tmp_path / "out", WordTokenizer(fail_at=3))
    write_corpus(tmp_path / "in" / "books.jsonl", ["something else"])
    with pytest.raises(InputError, match=r"another content of .*books\.jsonl"):
        run(config, tmp_path / "out")


def test_folder_with_other_files_is_refused_and_kept(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="other files"):
        run(config, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_folder_named_work_of_someone_else_is_not_touched(config, tmp_path):
    (tmp_path / "out" / "work").mkdir(parents=True)
    (tmp_path / "out" / "work" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="other files"):
        run(config, tmp_path / "out")
    assert (tmp_path / "out" / "work" / "thesis.txt").read_text() == "x"


def test_second_process_in_the_same_folder_is_refused(config, tmp_path):
    with pytest.raises(RuntimeError):
        run(config, tmp_path / "out", WordTokenizer(fail_at=3))
    with (
        filelock.FileLock(tmp_path / "out" / "work" / "lock"),
        pytest.raises(InputError, match="another process"),
    ):
        run(config, tmp_path / "out")


def test_source_too_small_for_the_budget_is_reported(config, tmp_path):
    report = run(BuildConfig(**{**vars(config), "tokens": 40_000}), tmp_path / "out")
    books = report.sources[1]
    assert books.missing_tokens == 16_000 - books.train_tokens
    assert "books is too small" in (tmp_path / "out" / "report.md").read_text()


def test_source_without_any_usable_document_is_named(config, tmp_path):
    write_corpus(tmp_path / "in" / "books.jsonl", ["short", "shorter"])
    with pytest.raises(InputError, match=r"no document left(.|\n)*books"):
        run(config, tmp_path / "out")


def test_report_for_people_has_every_source_and_input(config, tmp_path):
    report = run(config, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    for source in report.sources:
        assert f"| {source.name} | {source.kept_tokens:,} |" in text
    for file in report.identity.inputs:
        assert file.sha256 is not None
        assert file.sha256 in text
