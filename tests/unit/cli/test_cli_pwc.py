from __future__ import annotations

import json
import random

import pytest

from icae.cli.decoder_writer import DecoderWriter
from icae.data.triplets.records import Context, Reply, TripletConfig
from llm_stub import llm_stub


@pytest.fixture
def corpus(tmp_path, monkeypatch, tokenizer):
    """Twelve documents, and the tiny tokenizer in place of the base model's."""
    monkeypatch.setattr("icae.model.base.load_tokenizer", lambda base: tokenizer)
    rng = random.Random(0)
    path = tmp_path / "corpus.jsonl"
    with path.open("w") as stream:
        for number in range(12):
            words = [
                " ".join("".join(rng.choices("abcdefgh", k=6)) for _ in range(9)) for _ in "ab"
            ]
            text = f"Paris saw {words[0]} in {1900 + number}. The end was {words[1]}."
            stream.write(json.dumps({"text": text, "title": f"Paris {number}"}) + "\n")
    return path


@pytest.fixture
def build(icae, corpus, tmp_path):
    def run(*options, llm, output="out.jsonl"):
        settings = ("--tokens", "20-2000", "--contexts", 10, "--test-share", 0)
        return icae(
            "pwc", "build", "--corpus", corpus, "--llm", llm, "-o", tmp_path / output,
            *settings, *options,
        )  # fmt: skip

    return run


SMALL = ("--model", "m", "--specific", 2, "--general", 1)


def test_triplets_are_counted_by_task_and_lie_beside_their_datasheet(build, tmp_path) -> None:
    with llm_stub() as stub:
        result = build(*SMALL, llm=stub.url)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["specific", "20", "0"] in rows
    assert ["all", "30", "0"] in rows
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 30
    assert f"m ({stub.url})" in (tmp_path / "out.datasheet.md").read_text()


def test_contexts_that_gave_no_triplet_and_passages_left_out_are_told(build, corpus) -> None:
    with corpus.open("a") as stream:
        stream.write(json.dumps({"text": "Hi."}) + "\n")
    options = ("--corpus-tasks", "corpus-years", "--contexts", 20)
    lonely = "It began in 1901 and it ended in 1907, as people said. " * 3
    with corpus.open("a") as stream:
        stream.write(json.dumps({"text": lonely}) + "\n")
    result = build(*options, llm="none")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "13 of 20 contexts found in 14 documents" in told
    assert "shorter or longer than --tokens 1" in told
    assert "12 of 13 contexts gave no triplet" in told
    payload = json.loads(build(*options, "--json", "--force", llm="none").stdout)
    assert payload["contexts_without_triplet"] == 12
    assert payload["passages_left_out"] == {"few_tokens": 1}


def test_key_comes_from_the_environment_and_shows_nowhere(build, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MY_KEY", "tell-nobody")
    with llm_stub() as stub:
        result = build(*SMALL, "--api-key-env", "MY_KEY", llm=stub.url)
    assert set(stub.keys) == {"Bearer tell-nobody"}
    written = b"".join(p.read_bytes() for p in tmp_path.iterdir() if p.is_file())
    assert b"tell-nobody" not in written + result.output.encode()


def test_corpus_alone_gives_triplets_without_any_service(build, tmp_path) -> None:
    result = build(llm="none", output="out.parquet")
    assert result.exit_code == 0, result.output
    assert "corpus-year" in result.stdout
    assert not (tmp_path / "out.journal.jsonl").exists()


def test_output_that_is_there_is_replaced_only_if_asked(build, tmp_path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    assert "exists already" in build(llm="none").stderr
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    assert build("--force", llm="none").exit_code == 0


def test_any_base_answers_without_an_adapter(build, build_decoder, tokenizer, tmp_path) -> None:
    base = tmp_path / "base"
    decoder = build_decoder()
    decoder.config.max_position_embeddings = 2048
    decoder.save_pretrained(base)
    tokenizer.save_pretrained(base)
    few = ("--specific", 0, "--general", 1, "--max-reply-tokens", 4)
    result = build(*few, "--base", base, llm="self")
    assert "Not one triplet" in result.output  # its weights are random
    _, *replies = map(json.loads, (tmp_path / "out.journal.jsonl").open())
    assert {one["completion_tokens"] for one in replies} == {4}
    assert len(replies) == 10


@pytest.mark.parametrize(
    ("options", "llm", "code", "message"),
    [
        ((), "http://x/v1", 2, "needs the name of a model"),
        (("--model", "m"), "localhost", 1, "no URL"),
        (("--model", "m", "--api-key-env", "NO_SUCH_KEY"), "http://x/v1", 1, "NO_SUCH_KEY"),
        (("--tokens", "many"), "none", 2, "64-512"),
        (("--tokens", "90-20"), "none", 1, "out of range"),
        (("--tokens", "5000-6000"), "none", 1, "no fitting context"),
        (("--general", "3"), "none", 2, "Specific and general prompts"),
        (("--model", "m"), "self", 2, "a service behind a URL"),
        (("--corpus-tasks", "corpus-nam"), "none", 1, "corpus-name, corpus-who"),
        (("--against", "nowhere.jsonl"), "none", 1, "nowhere.jsonl"),
    ],
)
def test_mistakes_are_named(build, options, llm, code, message) -> None:
    result = build(*options, llm=llm)
    assert (result.exit_code, message in " ".join(result.stderr.split())) == (code, True)


def test_tiny_decoder_writes_replies_of_its_own(engine) -> None:
    context = Context(id="1", document="1", text="This is a text.", tokens=4, source="notes")
    writer = DecoderWriter(engine.answerer, "tiny", max_new_tokens=4)
    requests = writer.requests(context, TripletConfig(corpus=("x",), specific=0, general=2))
    replies: list[Reply] = []
    assert writer.write(requests, replies.append) == {}
    assert [one.request for one in replies] == [one.id for one in requests]
    alone = engine.ask_text(context.text, requests[0].prompts[0].text, max_new_tokens=4)
    assert replies[0].text == alone.text
