from __future__ import annotations

import pytest

from icae.data.pwc.prompts import AnswerRules
from icae.data.pwc.quality import copied_share, flaw, foreign_share, repeated_share

STRICT = AnswerRules(
    min_words=4, max_words=30, most_copied=0.5, most_foreign=0.2, ending="sentence"
)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("She wrote notes on an early computing machine.", None),
        (" ", "empty"),
        ("...", "empty"),
        ("She wrote notes on an early computing machine", "unterminated"),
        ("The text does not mention who wrote the notes.", "refusal"),
        ("As an AI language model I cannot read.", "refusal"),
        ("She wrote notes.<|im_end|> And more notes.", "leftover"),
        ("Sure! She wrote notes on an early machine.", "preamble"),
        ("Here is what the text says about her.", "preamble"),
        ('The original text is: "She wrote notes on engines."', "preamble"),
        ("She wrote it.", "short"),
        ("word " * 31 + "end.", "long"),
        ("The engine computes numbers. The engine computes numbers. Yes.", "repeating"),
        ("Who wrote the notes of 1843? Ada did.", "echo"),
        ("She worked with Charles Babbage on his engine. Fine.", "copied"),
        ("She moved to Paris in 1850 with her aunt Clara.", "foreign"),
    ],
)
def test_first_flaw_of_an_answer_is_named(make_context, answer, reason) -> None:
    prompt = "Who wrote the notes of 1843?"
    assert flaw(make_context(), prompt, answer.strip(), rules=STRICT, finish="stop") == reason


def test_loose_rules_let_a_short_quotation_pass(make_context) -> None:
    assert flaw(make_context(), "Who?", "Babbage", rules=AnswerRules(), finish="stop") is None


def test_share_of_copied_words_counts_long_runs_only(make_context) -> None:
    text = make_context().text
    assert copied_share(text, text) == 1.0
    assert copied_share(text, "born in London in 1815") == 0.0
    half = "She worked with Charles Babbage on his engine one two three four five six seven eight"
    assert copied_share(text, half) == 0.5


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Every word here differs from all the others.", 0.0),
        ("meter, inch, mile, inch, mile, inch", 0.5),
        ("- gas\n- light\n- gas\n- light", 0.5),
        ("He left. He left.", 0.5),
        ("", 0.0),
    ],
)
def test_repetition_is_seen_in_runs_sentences_and_lists(text, share) -> None:
    assert repeated_share(text) == pytest.approx(share)


def test_names_and_numbers_are_compared_with_the_text_but_not_list_numbers() -> None:
    text = "In 1815 Ada met Charles."
    assert foreign_share(text, "She met Charles in 1815.") == 0.0
    assert foreign_share(text, "1. met Charles\n2. was young") == 0.0
    assert foreign_share(text, "She met Clara in 1815.") == 0.5
