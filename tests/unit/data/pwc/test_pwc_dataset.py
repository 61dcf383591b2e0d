from __future__ import annotations

import json

import pytest

from icae.data.pwc.contexts import ContextConfig, ContextSample
from icae.data.pwc.dataset import make_dataset
from icae.data.pwc.datasheet import BY_HAND, Making, Origin, Usage, datasheet, kept_by_hand
from icae.data.pwc.estimate import Price, estimate
from icae.data.pwc.output import PwcFiles
from icae.data.pwc.plan import PwcConfig, answer_requests, pairs_requests
from icae.data.pwc.prompts import DECODER_TASKS, GENERAL_TASKS, choose_general
from icae.data.pwc.records import Pair, Written
from icae.data.pwc.requests import Sent, unanswered
from icae.data.pwc.selection import side_of, without_repeats
from icae.data.triplets import read_triplets
from icae.errors import ConfigError, InputError

SENT = Sent(model="m", options={"temperature": 0.5})


@pytest.fixture
def contexts(make_context):
    return [make_context(f"Text number {n} tells of Paris.", number=n) for n in range(1, 21)]


@pytest.fixture
def config(tmp_path):
    (tmp_path / "c.txt").write_text("some text")
    return PwcConfig(
        corpus=(str(tmp_path / "c.txt"),), specific=1, general=0, test_share=0.3, seed=5
    )


def answer(number: int) -> str:
    pair = {"prompt": f"What about {number}?", "answer": f"Answer {number}"}
    return json.dumps({"specific": [pair]})


@pytest.fixture
def replies(contexts, config, make_reply):
    return {
        request.id: [make_reply(answer(n), request=request.id)]
        for n, request in enumerate(pairs_requests(contexts, config, sent=SENT))
    }


@pytest.fixture
def dataset(contexts, config, replies):
    requests = pairs_requests(contexts, config, sent=SENT)
    return make_dataset(contexts, requests, replies, config, model="m")


def test_every_context_is_on_the_side_of_its_document(dataset, contexts, config) -> None:
    assert {len(rows) for rows in dataset.sides.values()} == {14, 6} or sum(
        map(len, dataset.sides.values())
    ) == 20
    for context in contexts:
        side = side_of(context, test_share=0.3, seed=5)
        assert context.text in {one.context for one in dataset.sides[side]}
    train, test = ({one.context for one in dataset.sides[side]} for side in ("train", "test"))
    assert train
    assert test
    assert not train & test


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_triplets_are_read_back_by_the_reader_of_fine_tuning(dataset, tmp_path, name) -> None:
    files = PwcFiles(train=tmp_path / name)
    files.save(dataset)
    for side, rows in dataset.sides.items():
        back = list(read_triplets(files.of(side)))
        assert [(t.context, t.prompt, t.answers, t.id) for t in back] == [
            (row.context, row.prompt, (row.answer,), row.id) for row in rows
        ]
    assert not list(tmp_path.glob(".*"))


def test_other_suffixes_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"jsonl or \.parquet"):
        PwcFiles(train=tmp_path / "out.csv")


def test_prompts_alike_about_one_context_are_kept_once(make_context) -> None:
    def pair(prompt):
        return Pair(task="specific", prompt=prompt, answer="x")

    prompts = (
        "Who wrote the long notes on it?",
        "who wrote the long notes on it",
        "Who wrote the long notes?",
        "When were the notes written?",
    )
    context = make_context()
    part = Written(context=context, pairs=tuple(map(pair, prompts)), rejections=())
    joined = without_repeats(context, [part, part])
    assert [p.prompt for p in joined.pairs] == [prompts[0], prompts[2], prompts[3]]
    assert {r.reason for r in joined.rejections} == {"exact"}
    close = Written(
        context=context,
        pairs=(pair("Who wrote the long notes on it then?"),),
        rejections=(),
    )
    assert [r.reason for r in without_repeats(context, [part, close]).rejections][-1] == "near"


def test_first_usable_reply_counts_and_the_ones_before_are_rejected(
    contexts, config, make_reply, replies
) -> None:
    requests = pairs_requests(contexts, config, sent=SENT)
    bad = make_reply("garbage", request=requests[0].id)
    replies[requests[0].id].insert(0, bad)
    made = make_dataset(contexts, requests, replies, config, model="m")
    assert sum(map(len, made.sides.values())) == 20
    assert made.reasons == {"not_json": 1}


def test_request_is_open_until_a_reply_can_be_used_or_it_was_asked_often_enough(
    contexts, config, make_reply
) -> None:
    (request,) = pairs_requests(contexts[:1], config, sent=SENT)
    bad, good = (make_reply(text, request=request.id) for text in ("garbage", answer(1)))
    for known, asks, is_open in (
        ([], 1, True),
        ([bad], 1, False),
        ([bad], 2, True),
        ([bad, good], 3, False),
    ):
        left = list(unanswered([request], {request.id: known}, asks=asks))
        assert bool(left) is is_open


def test_id_of_a_request_depends_on_all_that_is_sent_and_on_nothing_else(contexts, config) -> None:
    def ids(sent, **changes):
        settings = PwcConfig(**{**vars(config), **changes})
        return [one.id for one in pairs_requests(contexts, settings, sent=sent)]

    assert ids(SENT) == ids(SENT, test_share=0.5, from_corpus=3)
    assert len(set(ids(SENT))) == 20
    assert set(ids(SENT)).isdisjoint(ids(SENT, specific=2))
    assert set(ids(SENT)).isdisjoint(ids(Sent(model="n", options=SENT.options)))
    assert set(ids(SENT)).isdisjoint(ids(Sent(model="m", options={"temperature": 0.6})))


def test_general_prompts_are_of_different_tasks_and_the_same_each_time(contexts) -> None:
    chosen = choose_general(contexts[0], count=5, seed=1)
    assert len({one.task for one in chosen}) == 5
    assert choose_general(contexts[0], count=5, seed=1) == chosen
    assert len(choose_general(contexts[0], count=99, seed=1)) == len(GENERAL_TASKS)
    assert len({choose_general(one, count=2, seed=1) for one in contexts}) > 5


def test_decoder_is_asked_one_prompt_at_a_time_with_the_text_before_it(contexts, config) -> None:
    requests = answer_requests(contexts[:1], config, sent=SENT)
    (message,) = requests[0].messages
    assert message.content == f"{contexts[0].text}\n\n{requests[0].prompt.text}"
    more = PwcConfig(corpus=("x",), specific=0, general=9)
    assert {one.prompt.task for one in answer_requests(contexts, more, sent=SENT)} == {
        task.name for task in DECODER_TASKS
    }


def test_estimate_learns_from_the_replies_so_far(contexts, config, word_tokenizer, make_reply):
    requests = pairs_requests(contexts, config, sent=SENT)
    guess = estimate(requests, requests, {}, word_tokenizer)
    assert guess.requests == 20
    assert guess.from_replies == 0
    assert guess.completion_tokens == 20 * requests[0].expected_tokens
    known = {requests[0].id: [make_reply("x", request=requests[0].id)]}
    better = estimate(requests[1:], requests, known, word_tokenizer)
    assert (better.from_replies, better.completion_tokens) == (1, 19 * 3)
    assert better.prompt_tokens < guess.prompt_tokens
    price = Price(prompt=2.0, completion=10.0)
    assert price.of(prompt_tokens=1_000_000, completion_tokens=500_000) == 7.0


def sheet(dataset, contexts, config, by_hand=None):
    return datasheet(
        dataset,
        ContextSample(contexts=tuple(contexts), documents=20, dropped={"short": 3}),
        config,
        origin=Origin(model="m", service="http://x/v1", options=SENT.options),
        making=Making(
            commit="abc",
            command="icae pwc build",
            usage=Usage(replies=20, prompt_tokens=500_000, completion_tokens=1_000_000),
            price=Price(prompt=1, completion=2),
        ),
        by_hand=by_hand,
    )


def test_datasheet_names_what_made_the_data_and_counts_it(dataset, contexts, config) -> None:
    text = sheet(dataset, contexts, config)
    for wanted in (
        "m (http://x/v1), temperature 0.5",
        "Seed: 5",
        "commit abc",
        "2.50 at 1",
        "short 3",
    ):
        assert wanted in text
    train, test = (len(dataset.sides[side]) for side in ("train", "test"))
    assert f"| specific | {train} | {test} |" in text
    assert text.count("*to be filled in*") == 4


def test_section_filled_in_by_hand_survives_a_rebuild(dataset, contexts, config) -> None:
    mine = f"{BY_HAND}\n\n- Licence of the texts: CC0\n"
    again = sheet(dataset, contexts, config, by_hand=kept_by_hand(f"# Old\n\n{mine}"))
    assert again.endswith(mine)
    assert kept_by_hand("# Other file") is None


@pytest.mark.parametrize(
    "values",
    [
        {"specific": -1},
        {"test_share": 1.0},
        {"specific": 0, "general": 0},
    ],
)
def test_builds_that_make_no_sense_are_refused(values) -> None:
    with pytest.raises(ConfigError):
        PwcConfig(corpus=("x",), **values)


def test_contexts_default_to_the_lengths_of_the_paper() -> None:
    assert ContextConfig().max_tokens == 512
