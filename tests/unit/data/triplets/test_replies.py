import json

import pytest

from icae.data.triplets.answers import find_flaw, read_answer, read_pairs
from icae.data.triplets.prompts import AnswerRules, Prompt, Task

TOPIC_RULES = AnswerRules(min_words=4, max_words=60)
GENERAL = (
    Prompt(task=Task(name="title", wordings=()), text="Give the text a short title."),
    Prompt(task=Task(name="topic", wordings=(), rules=TOPIC_RULES), text="What is the main topic?"),
)
PAIR = {"prompt": "Who was born in London?", "answer": "Ada Lovelace"}
TITLE = {"number": 1, "answer": "The First Programmer"}
TOPIC = {"number": 2, "answer": "The text is about the life of Ada Lovelace."}
STRICT = AnswerRules(
    min_words=4, max_words=30, most_copied=0.5, most_foreign=0.2, ending="sentence"
)


@pytest.fixture
def read(make_context, make_reply):
    """(usable pairs, rejected ones) of a reply."""

    def run(reply, *, specific=1, general=GENERAL, **options):
        text = reply if isinstance(reply, str) else json.dumps(reply)
        found = list(
            read_pairs(
                make_reply(text, **options), make_context(), specific=specific, general=general
            )
        )
        return [p for p in found if not p.flaw], [p for p in found if p.flaw]

    return run


def flaws(pairs):
    return [pair.flaw for pair in pairs]


def test_reply_of_the_shape_asked_for_gives_all_its_pairs(read):
    used, rejected = read({"specific": [PAIR], "general": [TITLE, TOPIC]})
    assert [(p.task, p.prompt, p.answer) for p in used] == [
        ("specific", "Who was born in London?", "Ada Lovelace"),
        ("title", "Give the text a short title.", "The First Programmer"),
        ("topic", "What is the main topic?", "The text is about the life of Ada Lovelace."),
    ]
    assert rejected == []
    fenced = f"```json\n{json.dumps({'specific': [PAIR]})}\n```"
    assert read(fenced, general=())[0] == used[:1]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Sure! Here is the JSON:", "not_json"),
        ('Here: {"specific": [], "general": []}', "not_json"),
        ("", "not_json"),
        ("[1, 2]", "wrong_shape"),
        ('{"specific": [], "general": {}}', "wrong_shape"),
        ('{"specific": []}', "wrong_shape"),
        ("[" * 100_000, "not_json"),
    ],
)
def test_other_replies_are_rejected_as_a_whole_and_kept(read, reply, reason):
    used, (rejected,) = read(reply)
    assert used == []
    assert (rejected.flaw, rejected.task, rejected.answer) == (reason, "reply", reply)


def test_reply_that_was_cut_off_is_rejected_even_if_it_is_json(read):
    used, rejected = read({"specific": [PAIR], "general": [TITLE, TOPIC]}, finish="length")
    assert (used, flaws(rejected)) == ([], ["truncated"])


@pytest.mark.parametrize(
    "entry",
    [
        "Who?",
        {"prompt": "Who?"},
        {"prompt": 3, "answer": "x"},
        {"prompt": " ", "answer": "x"},
        {"prompt": "Who?", "answer": "\ud800"},
    ],
)
def test_entry_of_another_shape_is_rejected_alone(read, entry):
    used, rejected = read({"specific": [entry, PAIR]}, specific=2, general=())
    assert [p.answer for p in used] == ["Ada Lovelace"]
    assert flaws(rejected) == ["wrong_entry"]


def test_prompts_beyond_the_number_asked_for_are_surplus(read):
    entries = [PAIR, {"prompt": "When?", "answer": "1815"}]
    used, rejected = read({"specific": entries}, general=())
    assert (len(used), flaws(rejected)) == (1, ["surplus"])


@pytest.mark.parametrize(
    ("entries", "reasons"),
    [
        ([TITLE, TITLE, TOPIC], ["unasked"]),
        ([TITLE, TOPIC, {"number": 9, "answer": "x"}], ["unasked"]),
        ([TITLE, {"number": True, "answer": "x"}], ["wrong_entry", "missing"]),
        ([{"number": 1}, TOPIC], ["wrong_entry"]),
    ],
)
def test_numbers_not_asked_for_left_out_and_of_another_shape_are_told_apart(read, entries, reasons):
    assert flaws(read({"general": entries}, specific=0)[1]) == reasons


def test_plain_answer_that_was_cut_off_is_unterminated(make_context, make_reply):
    text = "The text is about the life of Ada Lovelace."
    (whole,) = read_answer(make_reply(text), make_context(), GENERAL[1])
    (cut,) = read_answer(make_reply(text, finish="length"), make_context(), GENERAL[1])
    assert (whole.answer, whole.flaw, cut.flaw) == (text, None, "unterminated")


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
        ("One, meter, inch, mile, inch, mile, inch.", "repeating"),
        ("- gas here\n- light\n- gas here\n- light.", "repeating"),
        ("He left for it. He left for it.", "repeating"),
        ("Who wrote the notes of 1843? Ada did.", "echo"),
        ("She worked with Charles Babbage on his engine. Fine.", "copied"),
        ("She worked with Charles Babbage on his engine one two three four five six ok so.", None),
        ("She moved to Paris in 1850 with her aunt Clara.", "foreign"),
        ("1. she was born in London\n2. she was with Charles Babbage.", None),
        ("Born in London and in 1815 with Clara here.", "foreign"),
    ],
)
def test_first_flaw_of_an_answer_is_named(make_context, answer, reason):
    prompt = "Who wrote the notes of 1843?"
    assert find_flaw(make_context(), prompt, answer.strip(), rules=STRICT, finish="stop") == reason
