"""Judging against a real HTTP server on 127.0.0.1, well-behaved and not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from icae.errors import ConfigError, InputError, MissingDependencyError
from icae.evals.judge import (
    Answered,
    judge_answers,
    messages,
    outcome,
    paired,
    parse,
    read_answers,
)
from icae.evals.judge_service import JudgeService
from icae.evals.results import ResultFiles
from llm_stub import Act, LlmStub, llm_stub

ANSWERS = {"right": "Paris, in France", "wrong": "London", "vague": "some town"}


def answer_file(path: Path, answers: list[str]) -> Path:
    lines = (
        json.dumps({"question": f"Question {i}?", "reference": "Paris", "answer": answer})
        for i, answer in enumerate(answers)
    )
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def judge(tmp_path: Path, quick: None) -> Any:
    """``judge(url, first, second)``: the finished result."""

    def run(url: str, first: list[str], second: list[str]) -> Any:
        service = JudgeService(url=url, model="m", api_key="secret", timeout=5.0, attempts=1)
        sets = [
            read_answers(answer_file(tmp_path / f"{name}.jsonl", answers), reads=None, ratio=None)
            for name, answers in (("a", first), ("b", second))
        ]
        where = {
            "cache": tmp_path / "replies.jsonl",
            "files": ResultFiles(folder=tmp_path / "out", name="judge"),
        }
        return judge_answers(*sets, service, **where, command="icae eval judge", together=1)

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
    right, wrong, vague = ANSWERS["right"], ANSWERS["wrong"], ANSWERS["vague"]
    with llm_stub(lambda n: Act(content=fair(asked(service)[n]))) as service:
        finished = judge(service.url, [right, wrong, vague, right], [wrong, right, wrong, vague])
    (row,) = finished.rows
    assert values(row) == [0.5, 0.25, 0.25, 0.0]
    assert row["margin"]["value"] == 0.25
    assert (row["questions"], row["judged"], row["unparsed"], row["failed"]) == (4, 4, 0, 0)
    assert row["first_preferred"]["value"] == 0.5
    assert len(service.bodies) == 8
    assert set(service.keys) == {"Bearer secret"}
    stored = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert stored["judge"]["prompt"] == "1"
    assert "secret" not in (tmp_path / "out" / "judge.json").read_text()
    assert "secret" not in (tmp_path / "replies.jsonl").read_text()
    assert stored["first"]["sha256"] != stored["second"]["sha256"]


def test_a_judge_that_always_says_a_decides_nothing_and_is_found_out(judge: Any) -> None:
    with saying("VERDICT: A") as service:
        (row,) = judge(service.url, ["x", "y"], ["u", "v"]).rows
    assert values(row) == [0.0, 0.0, 0.0, 1.0]
    assert row["first_preferred"]["value"] == 1.0
    assert row["judged"] == 2


def test_garbage_is_counted_as_unparsed_and_never_as_a_loss(judge: Any) -> None:
    replies = ["As an AI I cannot choose.", "VERDICT: C", "VERDICT: A\nVERDICT: B", "{}"]
    with saying(*replies) as service:
        (row,) = judge(service.url, ["x", "y"], ["u", "v"]).rows
    assert (row["unparsed"], row["failed"], row["judged"]) == (2, 0, 0)
    assert row["win"] is row["lose"] is row["tie"] is row["margin"] is None


NO_TEXT = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": null}}]}'


@pytest.mark.parametrize(
    "act",
    [
        *(Act(status=status) for status in (500, 401)),
        *(Act(raw=raw) for raw in (b"not json", b'{"choices": []}', NO_TEXT)),
        Act(content=""),
    ],
)
def test_a_broken_service_is_counted_as_no_reply(judge: Any, act: Act) -> None:
    with saying(act) as service:
        finished = judge(service.url, ["x"], ["u"])
    (row,) = finished.rows
    assert (row["failed"], row["judged"]) == (1, 0)
    assert row["lose"] is None
    assert finished.payload["problems"]


def test_replies_are_asked_for_once_and_failures_again(judge: Any, tmp_path: Path) -> None:
    with saying(Act(status=500), "VERDICT: A", "VERDICT: B") as service:
        (row,) = judge(service.url, ["x"], ["u"]).rows
        assert row["failed"] == 1
        (row,) = judge(service.url, ["x"], ["u"]).rows  # asks the one that failed
        assert (row["failed"], row["judged"]) == (0, 1)
        judge(service.url, ["x"], ["u"])
    assert len(service.bodies) == 3
    lines = (tmp_path / "replies.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["1", "1"]


def test_a_cut_off_line_of_the_cache_is_asked_again_and_another_file_refused(
    judge: Any, tmp_path: Path
) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text('{"key": "k", "reply": "r"}\n{"key": "l", "re')
    with saying("VERDICT: TIE") as service:
        (row,) = judge(service.url, ["x"], ["u"]).rows
        assert row["judged"] == 1
        path.write_text('{"other": 1}\n{"key": "l", "reply": "r"}\n')
        with pytest.raises(InputError, match="no cache"):
            judge(service.url, ["x"], ["u"])


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


def test_the_judge_sees_question_reference_context_and_both_answers() -> None:
    asked = Answered(question="Q?", answer="", reference="R")
    system, user = messages(asked, "C", "one {x}", "  ")
    assert system["role"] == "system"
    for part in ("Text:\nC", "Q?", "R", "Answer A:\none {x}", "Answer B:\n(empty)"):
        assert part in user["content"]
    assert "Text:" not in messages(asked, "", "one", "two")[1]["content"]


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


def test_answers_to_other_questions_have_nothing_to_judge(tmp_path: Path) -> None:
    other = tmp_path / "x.jsonl"
    other.write_text('{"question": "Other?", "answer": "x", "dataset": "d"}')
    files = (other, answer_file(tmp_path / "y.jsonl", ["a"]))
    sets = [read_answers(path, reads=None, ratio=None) for path in files]
    with pytest.raises(InputError, match="no question in common"):
        paired(*sets)


@pytest.mark.parametrize(
    "wrong", [{"url": "localhost:8000"}, {"model": ""}, {"timeout": 0}, {"attempts": 0}]
)
def test_a_service_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        JudgeService(**{"url": "http://h/v1", "model": "m", **wrong})


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=r"A judge needs openai"):
        JudgeService(url="http://h/v1", model="m").asker()
