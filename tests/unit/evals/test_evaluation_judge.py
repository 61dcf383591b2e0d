"""Judging against a real HTTP server on 127.0.0.1, well-behaved and not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from judge_server import serve

from icae.errors import ConfigError, InputError, MissingDependencyError
from icae.evals.judge import (
    CachedJudge,
    JudgeService,
    OpenAiJudge,
    Said,
    messages,
    parse,
)
from icae.evals.judging import Judging, judge_answers, outcome, read_answers

ANSWERS = {"right": "Paris, in France", "wrong": "London", "vague": "some town"}


def answer_file(path: Path, answers: list[str]) -> Path:
    lines = (
        json.dumps({"question": f"Question {i}?", "reference": "Paris", "answer": answer})
        for i, answer in enumerate(answers)
    )
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icae.evals.results.picture", lambda rows, plots, title: b"png")
    monkeypatch.setattr("icae.evals.bootstrap.RESAMPLES", 20)


@pytest.fixture
def judge(tmp_path: Path) -> Any:
    """``judge(url, first, second, timeout=...)``: the finished result."""

    def run(url: str, first: list[str], second: list[str], *, timeout: float = 5.0) -> Any:
        service = JudgeService(url=url, model="m", timeout=timeout, attempts=1)
        sets = []
        for name, answers in (("a", first), ("b", second)):
            path = answer_file(tmp_path / f"{name}.jsonl", answers)
            sets.append(read_answers(path, reads=None, ratio=None))
        judged = Judging(
            first=sets[0],
            second=sets[1],
            contexts={},
            service=service,
            cache=tmp_path / "replies.jsonl",
        )
        return judge_answers(
            judged,
            OpenAiJudge(service, "secret"),
            folder=tmp_path / "out",
            command="icae eval judge",
        )

    return run


def fair(message: str) -> str:
    """Prefers what names Paris, whatever the order."""
    first, second = message.partition("Answer A:")[2].split("Answer B:")
    scores = ["Paris" in text.partition("Which answer")[0] for text in (first, second)]
    if scores[0] == scores[1]:
        return "Neither stands out.\nVERDICT: TIE"
    return f"One names the town.\n**VERDICT: {'A' if scores[0] else 'B'}**"


def values(row: Any) -> list[float]:
    return [row[key]["value"] for key in ("win", "lose", "tie", "order_decides")]


def test_a_fair_judge_counts_wins_losses_and_ties(judge: Any, tmp_path: Path) -> None:
    right, wrong, vague = ANSWERS["right"], ANSWERS["wrong"], ANSWERS["vague"]
    with serve(fair) as service:
        finished = judge(service.url, [right, wrong, vague, right], [wrong, right, wrong, vague])
    (row,) = finished.rows
    assert values(row) == [0.5, 0.25, 0.25, 0.0]
    assert row["margin"]["value"] == 0.25
    assert (row["questions"], row["judged"], row["unparsed"], row["failed"]) == (4, 4, 0, 0)
    assert row["first_preferred"]["value"] == 0.5
    assert len(service.asked) == 8
    assert set(service.keys) == {"Bearer secret"}
    stored = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert stored["judge"]["prompt"] == "1"
    assert "secret" not in (tmp_path / "out" / "judge.json").read_text()
    assert "secret" not in (tmp_path / "replies.jsonl").read_text()
    assert stored["first"]["sha256"] != stored["second"]["sha256"]


def test_a_judge_that_always_says_a_decides_nothing_and_is_found_out(judge: Any) -> None:
    with serve(lambda message: "VERDICT: A") as service:
        (row,) = judge(service.url, ["x", "y"], ["u", "v"]).rows
    assert values(row) == [0.0, 0.0, 0.0, 1.0]
    assert row["first_preferred"]["value"] == 1.0
    assert row["judged"] == 2


def test_garbage_is_counted_as_unparsed_and_never_as_a_loss(judge: Any) -> None:
    replies = iter(["As an AI I cannot choose.", "VERDICT: C", "VERDICT: A\nVERDICT: B", "{}"])
    with serve(lambda message: next(replies)) as service:
        (row,) = judge(service.url, ["x", "y"], ["u", "v"]).rows
    assert (row["unparsed"], row["failed"], row["judged"]) == (2, 0, 0)
    assert row["win"] is row["lose"] is row["tie"] is row["margin"] is None


@pytest.mark.parametrize("reply", [500, 401, b"not json", b'{"choices": []}', None, ""])
def test_a_broken_service_is_counted_as_no_reply(judge: Any, reply: Any) -> None:
    with serve(lambda message: reply) as service:
        finished = judge(service.url, ["x"], ["u"])
    (row,) = finished.rows
    assert (row["failed"], row["judged"]) == (1, 0)
    assert row["lose"] is None
    assert finished.payload["problems"]


def test_replies_are_asked_for_once_and_failures_again(judge: Any, tmp_path: Path) -> None:
    replies: list[Any] = [500, "VERDICT: A", "VERDICT: B", "VERDICT: A"]
    with serve(lambda message: replies.pop(0)) as service:
        (row,) = judge(service.url, ["x"], ["u"]).rows
        assert row["failed"] == 1
        (row,) = judge(service.url, ["x"], ["u"]).rows  # asks the one that failed
        assert (row["failed"], row["judged"]) == (0, 1)
        judge(service.url, ["x"], ["u"])
    assert len(service.asked) == 3
    lines = (tmp_path / "replies.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["1", "1"]


def test_a_cut_off_line_of_the_cache_is_asked_again_and_another_file_refused(
    tmp_path: Path,
) -> None:
    class Once:
        def ask(self, messages: Any) -> Said:
            return Said(reply="VERDICT: A")

    path = tmp_path / "cache.jsonl"
    path.write_text('{"key": "k", "reply": "r"}\n{"key": "l", "re')
    assert CachedJudge(Once(), name="m", path=path).ask([]).reply == "VERDICT: A"
    path.write_text('{"other": 1}\n{"key": "l", "reply": "r"}\n')
    with pytest.raises(InputError, match="no cache"):
        CachedJudge(Once(), name="m", path=path)


@pytest.mark.parametrize(
    ("straight", "swapped", "expected"),
    [
        ("first", "second", "win"),
        ("first", "tie", "win"),
        ("tie", "second", "win"),
        ("second", "first", "lose"),
        ("tie", "first", "lose"),
        ("tie", "tie", "tie"),
        ("first", "first", "order decides"),
        ("second", "second", "order decides"),
        (None, "second", "unparsed"),
        ("first", None, "unparsed"),
    ],
)
def test_two_verdicts_come_to_one_outcome(straight: Any, swapped: Any, expected: str) -> None:
    assert outcome(straight, swapped) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("VERDICT: A", "first"),
        ("Because.\nverdict: b", "second"),
        ("**VERDICT: TIE**", "tie"),
        ("## Verdict: **A**.", "first"),
        ("VERDICT: A\n\nVERDICT: A", "first"),
        ("VERDICT: A or B", None),
        ("My verdict: A is better", None),
        ("A", None),
        ("", None),
    ],
)
def test_a_verdict_is_a_line_of_its_own(reply: str, expected: str | None) -> None:
    assert parse(reply) == expected


def test_the_judge_sees_question_reference_context_and_both_answers() -> None:
    system, user = messages("Q?", "R", "C", "one {x}", "  ")
    assert system["role"] == "system"
    for part in ("Text:\nC", "Q?", "R", "Answer A:\none {x}", "Answer B:\n(empty)"):
        assert part in user["content"]
    assert "Text:" not in messages("Q?", "R", "", "one", "two")[1]["content"]


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


def test_answers_to_other_questions_have_nothing_to_judge(judge: Any, tmp_path: Path) -> None:
    judge_file = tmp_path / "x.jsonl"
    judge_file.write_text('{"question": "Other?", "answer": "x", "dataset": "d"}')
    other = read_answers(judge_file, reads=None, ratio=None)
    service = JudgeService(url="http://127.0.0.1:9/v1", model="m")
    run = Judging(
        first=other,
        second=read_answers(answer_file(tmp_path / "y.jsonl", ["a"]), reads=None, ratio=None),
        contexts={},
        service=service,
        cache=tmp_path / "c.jsonl",
    )
    with pytest.raises(InputError, match="no question in common"):
        judge_answers(run, OpenAiJudge(service, ""), folder=tmp_path, command="x")


@pytest.mark.parametrize(
    "wrong", [{"url": "localhost:8000"}, {"model": ""}, {"timeout": 0}, {"attempts": 0}]
)
def test_a_service_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        JudgeService(**{"url": "http://h/v1", "model": "m", **wrong})


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=r"icae\[judge\]"):
        OpenAiJudge(JudgeService(url="http://h/v1", model="m"), "")
