"""`icae refine`, and the options of `icae compress` that ask for a fidelity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icae.cli.compress import DEFAULT_STEPS
from icae.memory import Memory

TEXT = "The quick brown fox jumps over the lazy dog while five boxing wizards look on. " * 4


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT)
    return path


def test_compress_without_a_goal_has_no_policy(icae: Any, fake: Any, document: Path) -> None:
    assert icae("compress", document).exit_code == 0
    assert fake.policies == [None]
    assert fake.refined == []


def test_min_fidelity_refines_before_it_lowers_the_ratio(
    icae: Any, fake: Any, document: Path
) -> None:
    assert icae("compress", document, "--min-fidelity", "0.9").exit_code == 0
    (policy,) = fake.policies
    assert policy.min_fidelity == 0.9
    assert policy.ladder == (4.0, 2.0)
    assert policy.refine.steps == DEFAULT_STEPS


def test_prefer_speed_does_not_refine(icae: Any, fake: Any, document: Path) -> None:
    icae("compress", document, "--min-fidelity", "0.9", "--prefer", "speed", "--ratios", "8,2")
    (policy,) = fake.policies
    assert policy.refine is None
    assert policy.ladder == (8.0, 2.0)


def test_budget_is_spent_without_refinement_unless_asked(
    icae: Any, fake: Any, document: Path
) -> None:
    icae("compress", document, "--budget", "30")
    icae("compress", document, "--budget", "30", "--refine", "5", "--force")
    assert [p.budget for p in fake.policies] == [30, 30]
    assert fake.policies[0].refine is None
    assert fake.policies[1].refine.steps == 5


def test_refine_alone_improves_the_file_at_the_same_ratio(
    icae: Any, fake: Any, document: Path
) -> None:
    assert icae("compress", document, "--refine", "9").exit_code == 0
    memory = Memory.load(document.with_suffix(".icae"))
    assert fake.refined[0].steps == 9
    assert memory.fidelity is not None
    assert memory.fidelity >= 0.98


def test_refined_file_keeps_no_text_if_none_was_wanted(
    icae: Any, fake: Any, document: Path
) -> None:
    icae("compress", document, "--refine", "9", "--no-source")
    memory = Memory.load(document.with_suffix(".icae"))
    assert memory.documents[0].source is None
    assert any(span.refine_steps for span in memory.spans)


@pytest.mark.parametrize("more", [["--min-fidelity", "0.9"], ["--budget", "9"], ["--refine", "3"]])
def test_goals_need_measuring(icae: Any, fake: Any, document: Path, more: list[str]) -> None:
    result = icae("compress", document, "--no-verify", *more)
    assert result.exit_code == 2
    assert "measuring" in result.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--min-fidelity", "98"], "fidelity"),
        (["--budget", "0"], "budget"),
        (["--budget", "9", "--ratios", "0.5"], "ratio"),
        (["--budget", "9", "--ratios", "four"], "four"),
    ],
)
def test_values_out_of_range_are_refused(
    icae: Any, fake: Any, document: Path, more: list[str], said: str
) -> None:
    result = icae("compress", document, *more)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert not document.with_suffix(".icae").exists()


def test_refine_touches_only_weak_spans(icae: Any, fake: Any, memory_file: Path) -> None:
    path, memory = memory_file, Memory.load(memory_file)
    assert icae("refine", path, "--min-fidelity", "0.98").exit_code == 0
    after = Memory.load(path)
    for old, new in zip(memory.spans, after.spans, strict=True):
        assert (new.refine_steps > 0) == (old.fidelity < 0.98)


def test_refine_can_leave_the_old_file_alone(
    icae: Any, fake: Any, memory_file: Path, tmp_path: Path
) -> None:
    path, other = memory_file, tmp_path / "better.icae"
    before = path.read_bytes()
    assert icae("refine", path, "-o", other).exit_code == 0
    assert path.read_bytes() == before
    assert Memory.load(other).fidelity > Memory.load(path).fidelity


def test_stopped_compression_leaves_a_memory_to_go_on_from(
    icae: Any, fake: Any, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = document.with_suffix(".icae")
    monkeypatch.setattr("icae.cli.compress.SAVE_SECONDS", -1.0)
    fake.failure = KeyboardInterrupt()
    stopped = icae("compress", document, "--min-fidelity", "0.99")
    assert stopped.exit_code == 130
    assert "--resume" in stopped.stderr
    left = Memory.load(target)
    fake.failure = None
    assert icae("compress", document, "--min-fidelity", "0.99", "--resume").exit_code == 0
    assert fake.starts == [None, left]
    assert Memory.load(target) != left


def test_nothing_is_said_of_a_file_that_was_not_written(
    icae: Any, fake: Any, document: Path
) -> None:
    fake.failure = KeyboardInterrupt()
    stopped = icae("compress", document, "--min-fidelity", "0.99")
    assert stopped.exit_code == 130
    assert "--resume" not in stopped.stderr
    assert not document.with_suffix(".icae").exists()


def test_resume_without_a_file_starts_anew(icae: Any, fake: Any, document: Path) -> None:
    assert icae("compress", document, "--min-fidelity", "0.9", "--resume").exit_code == 0
    assert fake.starts == [None]
