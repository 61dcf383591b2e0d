from __future__ import annotations

import pytest

from icae.cli.memory_tables import marked_spans, print_spans, weakest_spans


def test_weakest_spans_come_lowest_first(build_memory) -> None:
    spans = build_memory(span_length=4).spans
    assert weakest_spans(spans, 2) == [len(spans) - 1, len(spans) - 2]


def test_unmeasured_spans_are_neither_weak_nor_marked(build_memory) -> None:
    spans = build_memory(verify=False).spans
    assert weakest_spans(spans, 5) == []
    assert marked_spans(spans) == []


def test_the_best_span_is_never_marked(build_memory) -> None:
    assert marked_spans(build_memory(span_length=40).spans) == [1]
    assert marked_spans(build_memory(span_length=100).spans) == []


def test_few_spans_are_all_shown(build_memory, capsys) -> None:
    memory = build_memory(span_length=3)
    print_spans(memory.spans, memory.span_source, memory.fidelity)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(memory.spans) == 20
    assert len(lines) == 1 + 20
    assert lines[0].split()[:6] == ["span", "tokens", "held", "as", "characters", "fidelity"]


@pytest.mark.parametrize("verify", [True, False])
def test_of_many_spans_ten_are_shown(build_memory, capsys, verify) -> None:
    memory = build_memory(span_length=2, verify=verify)
    print_spans(memory.spans, memory.span_source, memory.fidelity)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 1 + 1 + 10
    if verify:
        assert lines[0].startswith("The 10 weakest of 30 spans (mean 85.5 %)")
        assert lines[2].split()[0] == "29"
        assert [line for line in lines if "weak " in line] == lines[2:5]
    else:
        assert lines[0] == "The first 10 of 30 spans"
