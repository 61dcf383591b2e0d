import json
from types import SimpleNamespace

import pytest

from icae.data.triplets import read_triplets
from icae.data.triplets.contexts import ContextSample
from icae.data.triplets.dataset import (
    build_triplets,
    plan_requests,
    side_of,
    triplet_files,
    without_repeats,
)
from icae.data.triplets.datasheet import BY_HAND, datasheet
from icae.data.triplets.records import Pair
from icae.data.triplets.requests import answer_requests
from icae.data.triplets.service import ChatService, ServiceWriter
from icae.errors import InputError
from llm_stub import Act, llm_stub


def writer(url="http://x/v1", model="m", asks=3, **options):
    return ServiceWriter(ChatService(url=url, model=model, **options), asks=asks)


@pytest.fixture
def contexts(make_requests):
    return [request.context for request in make_requests(10)]


@pytest.fixture
def build(contexts, make_config, tmp_path):
    """Build from a service; returns what came out."""

    def run(url, *, name="out.jsonl", asks=3):
        return build_triplets(
            contexts,
            make_config(),
            writer(url, asks=asks),
            tmp_path / name,
            on_progress=lambda done, total: None,
        )

    return run


def everything(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_triplets_of_both_sides_are_read_back_for_training(build, contexts, tmp_path, name):
    with llm_stub() as stub:
        made = build(stub.url, name=name)
    back = {side: list(read_triplets(p)) for side, p in triplet_files(tmp_path / name).items()}
    for side, triplets in back.items():
        assert [(t.context, t.prompt, t.answers[0], t.id) for t in triplets] == [
            (row["context"], row["prompt"], row["answer"], row["id"]) for row in made.sides[side]
        ]
        texts = {one.text for one in contexts if side_of(one, test_share=0.2, seed=0) == side}
        assert {triplet.context for triplet in triplets} == texts
    assert len({triplet.id for both in back.values() for triplet in both}) == 40
    assert made.usage == {"replies": 10, "prompt_tokens": 1000, "completion_tokens": 400}
    assert all(b"secret" not in data for data in everything(tmp_path).values())


def test_second_run_pays_for_nothing_and_gives_the_same_bytes(build, tmp_path):
    with llm_stub() as stub:
        build(stub.url)
        before = everything(tmp_path)
        build(stub.url)
        assert len(stub.bodies) == 10
    assert everything(tmp_path) == before


def test_reply_that_cannot_be_read_is_asked_for_again_and_kept_aside(build, tmp_path):
    garbage = "no JSON, \ud800"
    with llm_stub(lambda n: Act(content=garbage) if n == 0 else Act()) as stub:
        made = build(stub.url)
        assert len(stub.bodies) == 11
    assert sum(map(len, made.sides.values())) == 40
    rejected = json.loads((tmp_path / "out.rejected.jsonl").read_text())
    assert (rejected["reason"], rejected["task"], rejected["answer"]) == (
        *("not_json", "reply"),
        garbage,
    )


def test_hopeless_request_is_not_paid_for_more_often_than_asked(build):
    with llm_stub() as stub:

        def decide(number):
            text = stub.bodies[number]["messages"][-1]["content"]
            return Act(content="{}") if "This is text 3." in text else Act()

        stub.decide = decide
        made = build(stub.url, asks=2)
        build(stub.url, asks=2)
        asked = [b for b in stub.bodies if "This is text 3." in b["messages"][-1]["content"]]
    assert len(asked) == 2
    assert made.unanswered == 1


def test_request_given_up_is_asked_again_by_the_next_run_only(build):
    with llm_stub(lambda n: Act(status=400) if n == 0 else Act()) as stub:
        made = build(stub.url)
        assert (len(made.failures), len(stub.bodies)) == (1, 10)
        again = build(stub.url)
        assert (len(again.failures), len(stub.bodies)) == (0, 11)
    assert sum(map(len, again.sides.values())) == 40


def test_corpus_that_offers_nothing_is_reported_and_leaves_no_file(contexts, make_config, tmp_path):
    config = make_config(specific=0, general=0, from_corpus=2, test_share=0)
    with pytest.raises(InputError, match="Not one triplet"):
        build_triplets(
            contexts, config, None, tmp_path / "out.jsonl", on_progress=lambda done, total: None
        )
    assert not list(tmp_path.glob("out*"))


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"jsonl or \.parquet"):
        triplet_files(tmp_path / "out.csv")


def test_prompts_alike_about_one_context_are_kept_once():
    prompts = (
        "Who wrote the long notes on it?",
        "who wrote the long notes on it",
        "Who wrote the long notes?",
        "When were the notes written?",
        "Who wrote the long notes on it then?",
    )
    pairs = [Pair(task="specific", prompt=prompt, answer="x") for prompt in prompts]
    marked = [pair.flaw for pair in without_repeats(pairs)]
    assert marked == [None, "exact", None, None, "near"]


def test_id_of_a_request_depends_on_all_that_is_sent_and_on_nothing_else(contexts, make_config):
    def ids(sender, **changes):
        return {one.id for one in plan_requests(contexts, make_config(**changes), sender)}

    same = ids(writer())
    assert len(same) == 10
    assert same == ids(writer("http://elsewhere/v1", asks=1), test_share=0.5, from_corpus=3)
    others = (ids(writer(), specific=2), ids(writer(model="n")), ids(writer(temperature=0.6)))
    assert all(same.isdisjoint(other) for other in others)


def test_decoder_is_asked_one_prompt_at_a_time_with_the_text_before_it(make_context, make_config):
    sender = SimpleNamespace(model="tiny", options={})
    requests = answer_requests(sender, make_context(), make_config(specific=2, general=9))
    assert len(requests) == 2 + 5
    for request in requests:
        (message,) = request.messages
        assert message["content"] == f"{make_context().text}\n\n{request.prompts[0].text}"


def test_datasheet_names_what_made_the_data_and_keeps_what_was_filled_in(
    build, contexts, make_config, tmp_path
):
    with llm_stub() as stub:
        made = build(stub.url)
        sender = writer(stub.url)

    def sheet():
        return datasheet(
            made,
            ContextSample(contexts=tuple(contexts), documents=20, dropped={"short": 3}),
            make_config(),
            sender,
            train=tmp_path / "out.jsonl",
            commit="abc",
            command="icae pwc build",
        )

    text = sheet()
    for wanted in (
        f"m ({stub.url}), temperature 0.0, max_tokens 512",
        "Seed: 0",
        "commit abc",
        "10; 1,000 tokens read, 400 written",
        "short 3",
        "not checked for overlap",
        f"| specific | {made.tasks['specific']['train']} | {made.tasks['specific']['test']} |",
    ):
        assert wanted in text
    assert text.count("*to be filled in*") == 4
    mine = f"{BY_HAND}\n\n- Licence of the texts: CC0\n"
    (tmp_path / "out.datasheet.md").write_text(f"# Old\n\n{mine}")
    assert sheet().endswith(mine)
