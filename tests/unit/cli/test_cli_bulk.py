from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from icae.data.rows import read_rows

pytest.importorskip("pyarrow")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> list[dict[str, Any]]:
    """How the engine was asked for; it is the tiny one."""
    asked: list[dict[str, Any]] = []

    def opener(**options: Any) -> Any:
        asked.append(options)
        return lambda: tiny

    monkeypatch.setattr("icae.serve.bulk.EngineOpener", opener)
    return asked


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    lines = [json.dumps({"id": f"d{i}", "text": "some words " * 8}) for i in range(5)]
    path.write_text("\n".join([*lines, "{"]) + "\n", encoding="utf-8")
    return path


def test_documents_become_memories_and_bad_ones_are_counted(
    icae: Any, opened: Any, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    result = icae("bulk", source, output, "--ratio", 8, "--threads", 2, "--json")
    assert result.exit_code == 0, result.stderr
    payload = json.loads(result.stdout)
    assert (payload["documents"], payload["rejected"], payload["tokens"]) == (5, 1, 440)
    assert payload["slots"] == 55
    assert opened[0]["threads"] == 2
    (part,) = (output / "parts").iterdir()
    assert [row["id"] for _, row in read_rows(part)] == ["d0", "d1", "d2", "d3", "d4"]


def test_same_command_again_finds_everything_done(
    icae: Any, opened: Any, source: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        result = icae("bulk", source, tmp_path / "out", "--block", 2)
        assert result.exit_code == 0, result.stderr
    assert "3, 3 of them from before" in result.stdout
    assert "rejected" in result.stdout


def test_other_settings_for_the_same_folder_are_refused(
    icae: Any, opened: Any, source: Path, tmp_path: Path
) -> None:
    icae("bulk", source, tmp_path / "out")
    result = icae("bulk", source, tmp_path / "out", "--ratio", 2)
    assert result.exit_code == 1
    assert "ratio 2.0" in result.stderr
    assert "ratio 4.0" in result.stderr


def test_workers_without_ray_are_refused_with_the_way_out(
    icae: Any, opened: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = icae("bulk", source, tmp_path / "out", "--workers", 2)
    assert result.exit_code == 1
    assert "--workers 0" in result.stderr


def test_missing_input_is_refused(icae: Any, opened: Any, tmp_path: Path) -> None:
    result = icae("bulk", tmp_path / "none.jsonl", tmp_path / "out")
    assert result.exit_code == 1
    assert "The input is missing" in result.stderr
    assert not (tmp_path / "out").exists()
