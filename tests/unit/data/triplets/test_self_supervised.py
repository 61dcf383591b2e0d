import pytest

from icae.data.triplets.prompts import prompt_book
from icae.data.triplets.requests import about_prompts, choose_general
from icae.data.triplets.self_supervised import BLANK, corpus_pairs
from icae.data.triplets.sentences import is_sentence, sentences


@pytest.fixture
def pairs(make_context):
    """task -> (prompt, answer) of everything that a context offers, over a few seeds."""

    def run(*text, **fields):
        context = make_context(*text, **fields)
        found = [pair for seed in range(8) for pair in corpus_pairs(context, count=30, seed=seed)]
        return {
            task.name: {(p.prompt, p.answer) for p in found if p.task == task.name}
            for task in prompt_book().corpus
        }

    return run


def answers(found):
    return {answer for _, answer in found}


def test_answers_are_what_the_text_says(pairs):
    found = pairs()
    assert answers(found["corpus-first-sentence"]) == {"Ada Lovelace was born in London in 1815."}
    assert answers(found["corpus-last-sentence"]) == {
        "Her notes of 1843 describe how the engine would compute Bernoulli numbers."
    }
    assert answers(found["corpus-year"]) == {"1815", "1843"}
    assert answers(found["corpus-name"]) == {"London", "Charles Babbage", "Bernoulli"}
    assert answers(found["corpus-years"]) == {"1815, 1843"}


def test_what_was_taken_out_put_back_gives_the_text(pairs, make_context):
    text = make_context().text
    for prompt, answer in pairs()["corpus-name"] | pairs()["corpus-year"]:
        quoted = prompt.split(": ")[-1].split("? ")[-1].strip('"')
        assert quoted.replace(BLANK, answer) in text
    for prompt, answer in pairs()["corpus-rest-of-sentence"]:
        begin = prompt.split('"')[1].removesuffix(" ...")
        assert f"{begin} {answer}" in text


def test_title_is_asked_for_only_where_the_text_speaks_of_it(pairs):
    assert answers(pairs(title="Ada Lovelace", opening=True)["corpus-title"]) == {"Ada Lovelace"}
    assert not pairs(title="Grace Hopper", opening=True)["corpus-title"]
    assert not pairs(title="Ada Lovelace", opening=False)["corpus-title"]


def test_what_follows_is_answered_with_whole_sentences(pairs):
    after = "She died in London at the age of thirty six. The rest of it is cut"
    found = pairs(heading="Life", following=after)
    assert answers(found["corpus-next"]) == {"She died in London at the age of thirty six."}
    assert answers(found["corpus-heading"]) == {"Life"}


def test_sentence_that_starts_with_a_name_is_asked_for_its_subject(pairs):
    text = (
        "The Treaty of Paris ended the war between the two kingdoms in 1763. "
        "It was signed by three ministers after a year of talks. "
        "Martha Jones wrote to Martha Jones about it in a long letter. "
        "George Sand visited the island with the composer that winter."
    )
    found = {answer: prompt for prompt, answer in pairs(text)["corpus-who"]}
    assert set(found) == {"The Treaty of Paris", "George Sand"}
    assert "ho or what visited the island with the composer that winter?" in found["George Sand"]


def test_number_of_pairs_is_bounded_and_every_task_comes_before_a_second(make_context):
    few = corpus_pairs(make_context(), count=4, seed=3)
    assert len({pair.task for pair in few}) == len(few) == 4
    assert corpus_pairs(make_context(), count=4, seed=3) == few


def test_only_the_tasks_named_are_asked(make_context):
    found = corpus_pairs(make_context(), count=30, seed=0, tasks=("corpus-name", "corpus-year"))
    assert {pair.task for pair in found} == {"corpus-name", "corpus-year"}
    assert len(found) == len({pair.prompt for pair in found}) > 3


def test_text_without_anything_to_ask_for_gives_nothing(make_context):
    assert corpus_pairs(make_context("lower case only"), count=9, seed=0) == ()


def test_about_prompts_name_what_occurs_in_the_text(make_context):
    found = about_prompts(make_context(), count=9, seed=0)
    names = ("London", "Charles Babbage", "Bernoulli")
    assert len(found) == 3
    assert all(any(name in one.text for name in names) for one in found)


def test_general_prompts_are_of_different_tasks_and_the_same_each_time(make_context):
    tasks = prompt_book().general
    chosen = choose_general(make_context(), tasks, count=5, seed=1)
    assert len({one.task for one in chosen}) == 5
    assert choose_general(make_context(), tasks, count=5, seed=1) == chosen
    assert len(choose_general(make_context(), tasks, count=99, seed=1)) == len(tasks)
    contexts = [make_context(number=n) for n in range(20)]
    assert len({choose_general(one, tasks, count=2, seed=1) for one in contexts}) > 5


def test_sentences_do_not_end_at_abbreviations_and_initials():
    text = 'Mr. A. B. Smith met Dr. Jones at 3.5 p.m. today. "Was it good?" she asked. Yes!'
    assert sentences(text) == [
        "Mr. A. B. Smith met Dr. Jones at 3.5 p.m. today.",
        '"Was it good?" she asked.',
        "Yes!",
    ]


@pytest.mark.parametrize(
    ("text", "whole"),
    [("He left.", True), ("he left.", False), ("Early life", False), ('He said "no.', False)],
)
def test_whole_sentences_are_told_from_pieces(text, whole):
    assert is_sentence(text) is whole
