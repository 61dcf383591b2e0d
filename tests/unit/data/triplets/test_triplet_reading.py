import json
from pathlib import Path

import pytest

from icae.data.rows import table_bytes
from icae.data.triplets import Triplet, read_triplets
from icae.errors import InputError

REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "triplets"
GOOD = {"context": "c", "prompt": "p", "answer": "a", "dataset": "d", "id": "7"}


def read(tmp_path, *records, name="set.jsonl"):
    text = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / name).write_text(text)
    return list(read_triplets(tmp_path / name))


def without(key):
    return {name: value for name, value in GOOD.items() if name != key}


def test_line_becomes_a_triplet(tmp_path):
    expected = Triplet(context="c", prompt="p", answers=("a",), dataset="d", id="7")
    assert read(tmp_path, GOOD) == [expected]


def test_references_follow_the_answer_without_repeats_and_blanks(tmp_path):
    [triplet] = read(tmp_path, {**GOOD, "answers": ["b", "a", " ", "b", "A"]})
    assert triplet.answers == ("a", "b", "A")


def test_dataset_defaults_to_the_file_and_id_to_nothing(tmp_path):
    [triplet] = read(
        tmp_path, {"context": "c", "prompt": "p", "answer": "a"}, name="squad.v1.jsonl"
    )
    assert (triplet.dataset, triplet.id) == ("squad.v1", "")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (without("context"), "no field 'context'"),
        (without("prompt"), "no field 'prompt'"),
        (without("answer"), "no field 'answer'"),
        ({**GOOD, "context": " \n"}, "context is blank"),
        ({**GOOD, "answer": ""}, "answer is blank"),
        ({**GOOD, "prompt": None}, "prompt is a NoneType"),
        ({**GOOD, "answers": "a"}, "answers is 'a'"),
        ({**GOOD, "answers": [1]}, "answers is"),
        ({**GOOD, "id": 7}, "id is a int"),
    ],
)
def test_bad_line_is_refused_by_number(tmp_path, bad, reason):
    with pytest.raises(InputError, match=r"Line 2 of .*set\.jsonl(.|\n)*" + reason):
        read(tmp_path, GOOD, bad)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("set.jsonl", b"", "holds no triplet"),
        ("set.jsonl", None, r"set\.jsonl cannot be read"),
        ("set.parquet", b"PAR1 no more", "cannot be read"),
        ("set.parquet", table_bytes([{**GOOD, "answer": None}]), r"Line 1 of .*set\.parquet"),
    ],
)
def test_file_that_cannot_be_used_is_refused(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        list(read_triplets(tmp_path / name))


def test_rows_of_a_parquet_file_are_triplets(tmp_path) -> None:
    rows = [
        {"context": "a", "prompt": "b", "answer": "c", "answers": ["c", "d"], "id": "1"},
        {"context": "e", "prompt": "f", "answer": "g", "answers": None, "id": "2"},
    ]
    (tmp_path / "set.parquet").write_bytes(table_bytes(rows))
    first, second = read_triplets(tmp_path / "set.parquet")
    assert (first.answers, first.dataset, first.id) == (("c", "d"), "set", "1")
    assert second.answers == ("g",)
