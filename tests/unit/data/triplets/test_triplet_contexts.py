import json
import random
import string

import pytest

from icae.data.triplets.contexts import sample_contexts
from icae.data.triplets.dataset import side_of


def sentence(rng):
    words = ["".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(9)]
    return " ".join(["The", *words]) + "."


def document(number, *, paragraphs=6, heading=None):
    rng = random.Random(number)
    blocks = [" ".join(sentence(rng) for _ in range(3)) for _ in range(paragraphs)]
    if heading:
        blocks.insert(paragraphs // 2, heading)
    return {"text": "\n\n".join(blocks), "title": f"Notes {number}"}


DOCUMENTS = [document(number) for number in range(60)]


@pytest.fixture
def sample(word_tokenizer, make_config, tmp_path):
    def run(documents, *, against=(), **options):
        (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, documents)))
        (tmp_path / "eval.jsonl").write_text("\n".join(map(json.dumps, against)))
        settings = {"contexts": 20, "min_tokens": 20, "max_tokens": 100, **options}
        paths = (str(tmp_path / "notes.jsonl"),)
        against = (str(tmp_path / "eval.jsonl"),)
        config = make_config(corpus=paths, against=against, **settings)
        return sample_contexts(config, word_tokenizer)

    return run


def test_contexts_have_the_lengths_asked_for_and_stand_in_their_document(sample):
    found = sample(DOCUMENTS).contexts
    texts = [one["text"] for one in DOCUMENTS]
    assert len(found) == 20
    assert all(20 <= one.tokens == len(one.text.split()) <= 100 for one in found)
    assert all(sum(one.text in text for text in texts) == 1 for one in found)
    assert len({one.tokens for one in found}) > 3, "lengths vary"


def test_choice_depends_on_the_seed_and_not_on_the_order_of_the_corpus(sample):
    first = sample(DOCUMENTS)
    assert sample(DOCUMENTS[::-1]).contexts == first.contexts
    assert sample(DOCUMENTS, seed=1).contexts != first.contexts


def test_larger_sample_begins_with_the_smaller_one(sample):
    small, large = sample(DOCUMENTS, contexts=10), sample(DOCUMENTS, contexts=25)
    assert large.contexts[:10] == small.contexts


def test_what_follows_is_what_stands_behind_the_context(sample):
    found = [one for one in sample(DOCUMENTS, max_tokens=60).contexts if one.following]
    assert found
    for one in found:
        (text,) = (d["text"] for d in DOCUMENTS if one.text in d["text"])
        assert text.split(one.text)[1].lstrip().startswith(one.following[:40])


def test_context_stops_before_a_heading_and_one_behind_it_knows_it(sample):
    documents = [document(n, heading="Early life") for n in range(80)]
    found = sample(documents, contexts=60, max_tokens=1000, per_document=1).contexts
    assert all("Early life" not in one.text for one in found)
    assert any(one.opening and one.following is None for one in found)
    long = [{"text": f"Career\n\n{document(n)['text']}"} for n in range(10)]
    assert {one.heading for one in sample(long, contexts=10).contexts if one.opening} == {"Career"}


def test_near_duplicate_contexts_are_taken_once(sample):
    copies = [{"text": one["text"] + "\n\nCopied."} for one in DOCUMENTS[:30]]
    found = sample([*DOCUMENTS[:30], *copies], contexts=60, max_tokens=60)
    assert found.dropped["exact"] + found.dropped.get("near", 0) > 0
    assert len({one.text for one in found.contexts}) == len(found.contexts)


def test_context_with_words_of_an_evaluation_set_is_dropped(sample):
    found = sample(DOCUMENTS, against=DOCUMENTS[:59])
    assert {one.title for one in found.contexts} <= {"Notes 59"}
    assert found.dropped["contaminated"] >= 59


def test_long_documents_give_several_contexts_on_one_side(sample):
    found = sample([document(n, paragraphs=300) for n in range(4)], contexts=16, max_tokens=30)
    assert len(found.contexts) > 8
    sides = {(one.title, side_of(one, test_share=0.5, seed=0)) for one in found.contexts}
    assert len(sides) == len({title for title, _ in sides})


def test_text_of_one_long_sentence_is_taken_whole(sample):
    text = "The " + " ".join(f"word{number}" for number in range(0, 999, 11)) + "."
    for seed in range(3):
        assert [one.text for one in sample([{"text": text}], seed=seed).contexts] == [text]
