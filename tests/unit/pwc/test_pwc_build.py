from __future__ import annotations

import json
from pathlib import Path

import pytest

from icae.config.types import Answer
from icae.data.pwc.contexts import ContextSample
from icae.data.pwc.journal import read_journal
from icae.data.pwc.output import PwcFiles
from icae.data.pwc.plan import PwcConfig
from icae.errors import InputError
from icae.pwc.build import carry_out, corpus_job, decoder_job, service_job
from icae.pwc.decoder import DecoderWriter
from icae.pwc.endpoint import Endpoint
from icae.pwc.limits import Limits
from llm_stub import Act, llm_stub


@pytest.fixture
def sample(make_requests) -> ContextSample:
    contexts = tuple(one.context for one in make_requests(10))
    return ContextSample(contexts=contexts, documents=10, dropped={})


@pytest.fixture
def config(tmp_path) -> PwcConfig:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("some text")
    return PwcConfig(corpus=(str(corpus),), specific=3, general=1, test_share=0.2)


@pytest.fixture
def files(tmp_path) -> PwcFiles:
    return PwcFiles(train=tmp_path / "out.jsonl")


def finish(job, sample, config, files):
    return carry_out(
        job,
        sample,
        config,
        files,
        price=None,
        command="icae pwc build",
        on_progress=lambda done, total: None,
    )


@pytest.fixture
def build(sample, config, files):
    """Build from a service; returns what came out."""

    def run(url, *, asks=3):
        endpoint = Endpoint(url=url, model="m", api_key="secret")
        job = service_job(sample, config, endpoint, Limits(first_delay=0.01), asks=asks)
        return finish(job, sample, config, files)

    return run


def rows(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def everything(files: PwcFiles) -> dict[str, bytes]:
    folder = files.train.parent
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def test_build_writes_both_sides_and_all_that_goes_with_them(build, files) -> None:
    with llm_stub() as stub:
        built = build(stub.url)
    triplets = rows(files.train) + rows(files.test)
    assert len(triplets) == 40 == len({one["id"] for one in triplets})
    assert (built.usage.replies, built.usage.completion_tokens) == (10, 400)
    assert "10; 1,000 tokens read, 400 written" in files.datasheet.read_text()
    assert all(b"secret" not in data for data in everything(files).values())


def test_second_run_pays_for_nothing_and_gives_the_same_bytes(build, files) -> None:
    with llm_stub() as stub:
        build(stub.url)
        before = everything(files)
        build(stub.url)
        assert len(stub.bodies) == 10
    assert everything(files) == before


def test_reply_that_cannot_be_read_is_asked_for_again_and_kept_aside(build, files) -> None:
    with llm_stub(lambda n: Act(content="no JSON") if n == 0 else Act()) as stub:
        built = build(stub.url)
        assert len(stub.bodies) == 11
    assert sum(map(len, built.dataset.sides.values())) == 40
    (rejected,) = rows(files.rejected)
    assert (rejected["reason"], rejected["answer"]) == ("not_json", "no JSON")


def test_hopeless_request_is_not_paid_for_more_often_than_asked(build) -> None:
    with llm_stub() as stub:

        def decide(number: int) -> Act:
            text = stub.bodies[number]["messages"][-1]["content"]
            return Act(content="{}") if "This is text 3." in text else Act()

        stub.decide = decide
        built = build(stub.url, asks=2)
        build(stub.url, asks=2)
        asked = [b for b in stub.bodies if "This is text 3." in b["messages"][-1]["content"]]
    assert len(asked) == 2
    assert built.dataset.unanswered == 1


def test_request_given_up_is_asked_again_by_the_next_run_only(build) -> None:
    with llm_stub(lambda n: Act(status=400) if n == 0 else Act()) as stub:
        built = build(stub.url)
        assert (len(built.failures), len(stub.bodies)) == (1, 10)
        again = build(stub.url)
        assert (len(again.failures), len(stub.bodies)) == (0, 11)
    assert sum(map(len, again.dataset.sides.values())) == 40


def test_corpus_alone_needs_no_journal(sample, files, tmp_path) -> None:
    (tmp_path / "corpus.txt").write_text("some text")
    config = PwcConfig(
        corpus=(str(tmp_path / "corpus.txt"),),
        specific=0,
        general=0,
        from_corpus=2,
        test_share=0,
    )
    with pytest.raises(InputError, match="Not one triplet"):
        finish(corpus_job(), sample, config, files)
    assert not files.train.exists()
    assert not files.journal.exists()


class FakeReader:
    """Answers everything, and remembers what it was asked."""

    def __init__(self, *, finished: bool = True) -> None:
        self.asked: list[tuple[str, str]] = []
        self.finished = finished

    def ask_many(self, questions, *, max_new_tokens):
        self.asked.extend(questions)
        return [
            Answer(
                text=f"An answer with so many words about number {len(q) % 7} here.",
                prompt_tokens=9,
                memory_positions=4,
                answer_tokens=5,
                seconds=1.0,
                first_token_seconds=0.5,
                finished=self.finished,
            )
            for _, q in questions
        ]


def test_decoder_answers_each_prompt_from_the_full_text(sample, config, files) -> None:
    reader = FakeReader()
    job = decoder_job(sample, config, reader, model="tiny@abc", max_new_tokens=8)
    built = finish(job, sample, config, files)
    assert {text for text, _ in reader.asked} == {one.text for one in sample.contexts}
    assert len(reader.asked) == len(job.requests) == built.usage.replies
    assert "tiny@abc (decoder), decoding greedy, max_new_tokens 8" in files.datasheet.read_text()
    finish(job, sample, config, files)
    assert len(reader.asked) == len(job.requests), "the journal answers the second time"


def test_answer_of_the_decoder_that_met_the_limit_is_rejected(sample, config, files) -> None:
    job = decoder_job(
        sample, config, FakeReader(finished=False), model="tiny@abc", max_new_tokens=8
    )
    with pytest.raises(InputError, match="unterminated"):
        finish(job, sample, config, files)
    assert {one.finish for many in read_journal(files.journal).values() for one in many} == {
        "length"
    }


def test_tiny_decoder_writes_replies_of_its_own(engine, sample, config) -> None:
    job = decoder_job(sample, config, engine, model="tiny", max_new_tokens=4)
    replies = []
    writer = DecoderWriter(engine, model="tiny", max_new_tokens=4)
    assert writer.write(job.requests[:3], record=replies.append) == []
    assert [one.request for one in replies] == [one.id for one in job.requests[:3]]
    request = job.requests[0]
    alone = engine.ask_text(request.context.text, request.prompt.text, max_new_tokens=4)
    assert replies[0].text == alone.text
