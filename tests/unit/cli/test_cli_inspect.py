from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.usefixtures("no_engine")


def test_figures_documents_and_provenance_are_shown(icae, memory_file) -> None:
    result = icae("inspect", memory_file)
    assert result.exit_code == 0, result.output
    for expected in ("60 in 4 spans", "15 slots (4.00 tokens each)", "notes.txt", "aaaa", "fake"):
        assert expected in result.stdout
    assert "kept" in result.stdout
    assert result.stderr == ""


def test_weakest_passages_are_marked(icae, memory_file) -> None:
    lines = icae("inspect", memory_file).stdout.splitlines()
    weak = [line.split()[0] for line in lines if " weak " in line]
    assert weak == ["1", "2", "3"]


def test_first_words_are_shown_only_where_the_text_was_kept(
    icae, memory_file, bare_memory_file
) -> None:
    assert "The quick brown fox" in icae("inspect", memory_file).stdout
    bare = icae("inspect", bare_memory_file).stdout
    assert "quick" not in bare
    assert "not kept" in bare


def test_json_describes_the_file_without_its_text(icae, memory_file) -> None:
    payload = json.loads(icae("inspect", memory_file, "--json").stdout)
    assert payload["file_bytes"] == memory_file.stat().st_size
    assert (payload["tokens"], payload["slots"], payload["has_source"]) == (60, 15, True)
    assert payload["weakest"] == [3, 2, 1]
    assert payload["provenance"]["adapter"] == "fake"
    assert set(payload["documents"][0]) == {"name", "sha256", "chars", "tokens", "token_ids_sha256"}
    assert [span["slots"] for span in payload["spans"]] == [4, 4, 4, 3]
    assert "quick" not in json.dumps(payload)


def test_missing_file_is_an_error(icae, tmp_path) -> None:
    result = icae("inspect", tmp_path / "absent.icae", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "MemoryFileError"


def test_names_in_a_file_are_printed_as_they_are(icae, build_memory, tmp_path) -> None:
    path = tmp_path / "odd.icae"
    build_memory("[red]hot[/red] :smile:", name="[bold]a\x1b[2J.txt").save(path)
    text = icae("inspect", path).stdout
    assert "[bold]a\ufffd[2J.txt" in text
    assert "[red]hot[/red] :smile:" in text
