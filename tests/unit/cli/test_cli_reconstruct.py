from __future__ import annotations

import json

import pytest


def test_text_of_all_spans_runs_on(icae, fake, memory_file) -> None:
    result = icae("reconstruct", memory_file)
    assert result.exit_code == 0, result.output
    assert result.stdout == "<span 0><span 1><span 2><span 3>\n"


def test_chosen_spans_come_in_order_with_a_break_at_each_gap(icae, fake, memory_file) -> None:
    result = icae("reconstruct", memory_file, *("--span", 3), *("--span", 0), *("--span", 1))
    assert result.stdout == "<span 0><span 1>\n<span 3>\n"


def test_documents_are_parted_by_a_line_break(
    icae, fake, build_memory, tmp_path, memory_file
) -> None:
    path = tmp_path / "both.icae"
    (build_memory("one two") + build_memory("three")).save(path)
    assert icae("reconstruct", path).stdout == "<span 0>\n<span 1>\n"


def test_span_that_does_not_exist_is_refused_before_the_model_is_loaded(
    icae, no_engine, memory_file
) -> None:
    result = icae("reconstruct", memory_file, "--span", 4)
    assert result.exit_code == 1
    assert "0..3" in result.stderr


def test_comparison_shows_both_texts_and_the_exact_share(icae, fake, memory_file) -> None:
    text = icae("reconstruct", memory_file, "--compare", "--span", 1).stdout
    assert "<span 1>" in text
    assert "quick brown fox" in text
    assert "50.0 %" in text


def test_comparison_without_text_is_refused_before_the_model_is_loaded(
    icae, no_engine, bare_memory_file
) -> None:
    result = icae("reconstruct", bare_memory_file, "--compare")
    assert result.exit_code == 1
    assert "no source text" in result.stderr
    assert "--full-context" not in result.stderr


def test_output_goes_to_the_file_byte_for_byte(icae, fake, memory_file, tmp_path) -> None:
    path = tmp_path / "out.txt"
    result = icae("reconstruct", memory_file, "--output", path)
    assert path.read_bytes() == b"<span 0><span 1><span 2><span 3>"
    assert result.stdout == ""


def test_existing_output_needs_force(icae, fake, memory_file, tmp_path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("precious")
    assert icae("reconstruct", memory_file, "--output", path).exit_code == 1
    assert path.read_text() == "precious"
    assert icae("reconstruct", memory_file, "--output", path, "--force").exit_code == 0
    assert path.read_text() != "precious"


def test_memory_file_is_never_overwritten(icae, no_engine, memory_file) -> None:
    before = memory_file.read_bytes()
    assert icae("reconstruct", memory_file, "-o", memory_file, "--force").exit_code == 1
    assert memory_file.read_bytes() == before


@pytest.mark.parametrize(("keep", "share"), [(True, 0.5), (False, None)])
def test_json_holds_every_span(icae, fake, memory_file, bare_memory_file, keep, share) -> None:
    path = memory_file if keep else bare_memory_file
    payload = json.loads(icae("reconstruct", path, "--json").stdout)
    assert payload["text"] == "<span 0><span 1><span 2><span 3>"
    assert payload["exact_prefix"] == share
    assert [item["span"] for item in payload["spans"]] == [0, 1, 2, 3]
    assert payload["spans"][0]["exact_prefix"] == share
    assert payload["output"] is None
