from __future__ import annotations

import json
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
        return tiny

    monkeypatch.setattr("icae.serve.bulk.open_engine", opener)
    return asked


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    lines = [json.dumps({"id": f"d{i}", "text": "some words " * 8}) for i in range(5)]
    path.write_text("\n".join([*lines, "{"]) + "\n", encoding="utf-8")
    return path


def test_documents_become_memories_and_the_same_command_again_finds_them(
    icae: Any, payload: Any, opened: Any, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    asked = ("bulk", source, output, "--ratio", 8, "--threads", 2)
    made = payload(*asked)
    assert (made["documents"], made["rejected"], made["tokens"], made["slots"]) == (5, 1, 440, 55)
    assert opened[0]["threads"] == 2
    (part,) = (output / "parts").iterdir()
    assert [row["id"] for _, row in read_rows(part)] == ["d0", "d1", "d2", "d3", "d4"]
    told = icae(*asked).stdout
    assert "1, 1 of them from before" in told
    assert "rejected" in told
