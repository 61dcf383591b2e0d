from __future__ import annotations

import random
import string

import pytest

from icae.data.contamination import NgramIndex
from icae.data.corpus import CorpusDocument
from icae.data.pwc.contexts import ContextConfig, sample_contexts
from icae.data.pwc.selection import side_of
from icae.errors import ConfigError

NOTHING = NgramIndex([], n=12)


def sentence(rng) -> str:
    words = ["".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(9)]
    return " ".join(["The", *words]) + "."


def document(number: int, *, paragraphs: int = 6, heading: str | None = None) -> CorpusDocument:
    rng = random.Random(number)
    blocks = [" ".join(sentence(rng) for _ in range(3)) for _ in range(paragraphs)]
    if heading:
        blocks.insert(paragraphs // 2, heading)
    return CorpusDocument(text="\n\n".join(blocks), source="notes", title=f"Notes {number}")


DOCUMENTS = [document(number) for number in range(60)]


@pytest.fixture
def sample(word_tokenizer):
    def run(documents, *, seed=0, against=NOTHING, **options):
        config = ContextConfig(**{"count": 20, "min_tokens": 20, "max_tokens": 100, **options})
        return sample_contexts(documents, word_tokenizer, config, seed=seed, against=against)

    return run


def test_contexts_have_the_lengths_asked_for_and_stand_in_their_document(sample) -> None:
    found = sample(DOCUMENTS).contexts
    texts = [one.text for one in DOCUMENTS]
    assert len(found) == 20
    assert all(20 <= one.tokens == len(one.text.split()) <= 100 for one in found)
    assert all(sum(one.text in text for text in texts) == 1 for one in found)
    assert len({one.tokens for one in found}) > 3, "lengths vary"


def test_choice_depends_on_the_seed_and_not_on_the_order_of_the_corpus(sample) -> None:
    first = sample(DOCUMENTS)
    assert sample(DOCUMENTS[::-1]).contexts == first.contexts
    assert sample(DOCUMENTS, seed=1).contexts != first.contexts


def test_larger_sample_begins_with_the_smaller_one(sample) -> None:
    small, large = sample(DOCUMENTS, count=10), sample(DOCUMENTS, count=25)
    assert large.contexts[:10] == small.contexts


def test_what_follows_is_what_stands_behind_the_context(sample) -> None:
    found = [one for one in sample(DOCUMENTS, max_tokens=60).contexts if one.following]
    assert found
    for one in found:
        (text,) = (d.text for d in DOCUMENTS if one.text in d.text)
        assert text.split(one.text)[1].lstrip().startswith(one.following[:40])


def test_context_stops_before_a_heading_and_one_behind_it_knows_it(sample) -> None:
    documents = [document(n, heading="Early life") for n in range(80)]
    found = sample(documents, count=60, max_tokens=1000, per_document=1).contexts
    assert all("Early life" not in one.text for one in found)
    assert any(one.opening and one.following is None for one in found)
    long = [CorpusDocument(text=f"Career\n\n{document(n).text}", source="notes") for n in range(10)]
    assert {one.heading for one in sample(long, count=10).contexts if one.opening} == {"Career"}


def test_near_duplicate_contexts_are_taken_once(sample) -> None:
    copies = [
        CorpusDocument(text=one.text + "\n\nCopied.", source="copy") for one in DOCUMENTS[:30]
    ]
    found = sample([*DOCUMENTS[:30], *copies], count=60, max_tokens=60)
    assert found.dropped["exact"] + found.dropped.get("near", 0) > 0
    assert len({one.text for one in found.contexts}) == len(found.contexts)


def test_context_with_words_of_an_evaluation_set_is_dropped(sample) -> None:
    index = NgramIndex([one.text for one in DOCUMENTS[:59]], n=12)
    found = sample(DOCUMENTS, against=index)
    assert {one.title for one in found.contexts} <= {"Notes 59"}
    assert found.dropped["contaminated"] >= 59


def test_long_documents_give_several_contexts_on_one_side(sample) -> None:
    long = [document(number, paragraphs=300) for number in range(4)]
    found = sample(long, count=16, max_tokens=30).contexts
    assert len(found) > 8
    sides = {}
    for one in found:
        sides.setdefault(one.title, set()).add(side_of(one, test_share=0.5, seed=0))
    assert all(len(both) == 1 for both in sides.values())


def test_lengths_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="out of range"):
        ContextConfig(min_tokens=9, max_tokens=8)


def test_text_of_one_long_sentence_is_taken_whole(sample) -> None:
    words = " ".join(f"word{number}" for number in range(0, 999, 11))
    one = CorpusDocument(text=f"The {words}.", source="notes")
    for seed in range(5):
        assert [c.text for c in sample([one], seed=seed).contexts] == [one.text]
