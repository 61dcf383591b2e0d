"""Judging against a real HTTP server on 127.0.0.1, well-behaved and not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from icae.data.triplets.service import ChatService
from icae.errors import InputError
from icae.evals.judge import (
    Answered,
    AnswerSet,
    judge_answers,
    messages,
    outcome,
    paired,
    parse,
    read_answers,
)
from icae.evals.results import ResultFiles
from llm_stub import Act, LlmStub, llm_stub

RIGHT, WRONG, VAGUE = "Paris, in France", "London", "some town"


def answer_set(name: str, answers: list[str], dataset: str = "d") -> AnswerSet:
    given = [Answered(dataset, f"Question {i}?", "Paris", one) for i, one in enumerate(answers)]
    return AnswerSet(name=name, answers=tuple(given), record={"file": name, "sha256": "0" * 64})


@pytest.fixture
def judge(tmp_path: Path, quick: None) -> Any:
    """``judge(url, first, second)``: the finished result."""

    def run(url: str, first: list[str], second: list[str]) -> Any:
        service = ChatService(
            url=url, model="m", api_key="secret", timeout=5.0, attempts=1, concurrency=1
        )
        return judge_answers(
            answer_set("a", first),
            answer_set("b", second),
            service,
            files=ResultFiles(folder=tmp_path / "out", name="judge"),
            command="icae eval judge",
        )

    return run


def saying(*replies: Any) -> Any:
    """A judge that replies so in turn, the last one again and again: text or an `Act`."""
    acts = [reply if isinstance(reply, Act) else Act(content=reply) for reply in replies]
    return llm_stub(lambda n: acts[min(n, len(acts) - 1)])


def fair(message: str) -> str:
    """Prefers what names Paris, whatever the order."""
    first, second = message.partition("Answer A:")[2].split("Answer B:")
    scores = ["Paris" in text.partition("Which answer")[0] for text in (first, second)]
    if scores[0] == scores[1]:
        return "Neither stands out.\nVERDICT: TIE"
    return f"One names the town.\n**VERDICT: {'A' if scores[0] else 'B'}**"


def asked(service: LlmStub) -> list[str]:
    return [body["messages"][-1]["content"] for body in service.bodies]


def values(row: Any) -> list[float]:
    return [row[key]["value"] for key in ("win", "lose", "tie", "order_decides")]


def test_a_fair_judge_counts_wins_losses_and_ties(judge: Any, tmp_path: Path) -> None:
    with llm_stub(lambda n: Act(content=fair(asked(service)[n]))) as service:
        finished = judge(service.url, [RIGHT, WRONG, VAGUE, RIGHT], [WRONG, RIGHT, WRONG, VAGUE])
    (row,) = finished.rows
    assert values(row) == [0.5, 0.25, 0.25, 0.0]
    assert (row["questions"], row["judged"], row["unparsed"], row["failed"]) == (4, 4, 0, 0)
    assert len(service.bodies) == 8
    assert {body["temperature"] for body in service.bodies} == {0}
    for file in (tmp_path / "out").iterdir():
        assert b"secret" not in file.read_bytes()


def test_a_judge_that_always_says_a_decides_nothing(judge: Any) -> None:
    with saying("VERDICT: A") as service:
        (row,) = judge(service.url, ["x", "y"], ["u", "v"]).rows
    assert values(row) == [0.0, 0.0, 0.0, 1.0]
    assert row["judged"] == 2


def test_garbage_is_counted_as_unparsed_and_never_as_a_loss(judge: Any) -> None:
    replies = ["As an AI I cannot choose.", "VERDICT: C", "VERDICT: A\nVERDICT: B", "{}"]
    with saying(*replies) as service:
        (row,) = judge(service.url, ["x", "y"], ["u", "v"]).rows
    assert (row["unparsed"], row["failed"], row["judged"]) == (2, 0, 0)
    assert row["win"] is row["lose"] is row["tie"] is None


def test_replies_are_asked_for_once_and_failures_again(judge: Any) -> None:
    with saying(Act(status=500), "VERDICT: A", "VERDICT: B") as service:
        finished = judge(service.url, ["x"], ["u"])
        assert finished.rows[0]["failed"] == 1
        assert finished.payload["problems"]
        (row,) = judge(service.url, ["x"], ["u"]).rows  # asks the one that failed
        assert (row["failed"], row["judged"]) == (0, 1)
        judge(service.url, ["x"], ["u"])
    assert len(service.bodies) == 3


@pytest.mark.parametrize(
    ("straight", "swapped", "expected"),
    [
        (1, -1, "win"),
        (1, 0, "win"),
        (0, -1, "win"),
        (-1, 1, "lose"),
        (0, 1, "lose"),
        (0, 0, "tie"),
        (1, 1, "order decides"),
        (-1, -1, "order decides"),
        (None, -1, "unparsed"),
        (1, None, "unparsed"),
    ],
)
def test_two_verdicts_come_to_one_outcome(straight: Any, swapped: Any, expected: str) -> None:
    assert outcome(straight, swapped) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("VERDICT: A", 1),
        ("Because.\nverdict: b", -1),
        ("**VERDICT: TIE**", 0),
        ("## Verdict: **A**.", 1),
        ("VERDICT: A\n\nVERDICT: A", 1),
        ("VERDICT: A or B", None),
        ("My verdict: A is better", None),
        ("A", None),
        ("", None),
    ],
)
def test_a_verdict_is_a_line_of_its_own(reply: str, expected: int | None) -> None:
    assert parse(reply) == expected


def test_the_judge_sees_question_reference_and_both_answers() -> None:
    system, user = messages(Answered("d", "Q?", "R", ""), "one {x}", "  ")
    assert system["role"] == "system"
    for part in ("Q?", "R", "Answer A:\none {x}", "Answer B:\n(empty)"):
        assert part in user["content"]


def qa_result(path: Path) -> Path:
    single = {"group": [0, 1], "prompt": ["p", "q"], "reference": ["r", "s"], "answer": ["a", "b"]}
    rows = [
        {"dataset": "d", "kind": kind, "ratio": ratio, "per_question": single}
        for kind, ratio in (("memory", 2.0), ("memory", 4.0), ("full context", None))
    ]
    path.write_text(json.dumps({"experiment": "qa", "rows": rows, "commit": "c"}))
    return path


def test_answers_of_a_qa_result_are_chosen_by_reader_and_ratio(tmp_path: Path) -> None:
    path = qa_result(tmp_path / "qa.json")
    memory = read_answers(path, reads="memory", ratio=4.0)
    assert memory.name == "memory 4x"
    assert [a.answer for a in memory.answers] == ["a", "b"]
    assert memory.record["commit"] == "c"
    assert read_answers(path, reads="full context", ratio=4.0).name == "full context"
    with pytest.raises(InputError, match="several ratios"):
        read_answers(path, reads="memory", ratio=None)
    with pytest.raises(InputError, match="holds no answers of 'summary'"):
        read_answers(path, reads="summary", ratio=None)


def test_answers_to_other_questions_have_nothing_to_judge() -> None:
    with pytest.raises(InputError, match="no question in common"):
        paired(answer_set("a", ["x"]), answer_set("b", ["x"], dataset="other"))
