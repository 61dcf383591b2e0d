"""`icae append`, `edit`, `slice` and `merge`."""

from __future__ import annotations

import json

import pytest

from icae.memory import Memory

TEXT = "The quick brown fox jumps over the lazy dog while five boxing wizards look on. " * 4


@pytest.fixture
def more(tmp_path):
    path = tmp_path / "more.txt"
    path.write_text("And then it rained.")
    return path


def test_appended_text_ends_the_document_and_replaces_the_file(
    icae, fake, memory_file, more
) -> None:
    before = Memory.load(memory_file)
    result = icae("append", memory_file, more, "--json")

    assert result.exit_code == 0, result.output
    payload = json.loads(result.stdout)
    after = Memory.load(memory_file)
    assert str(after.documents[0].source).startswith(TEXT + "And then it rained.")
    assert after.spans[: len(before.spans)] == before.spans
    assert payload["output"] == str(memory_file)
    assert (payload["tokens"], payload["encoded_spans"]) == (64, 1)
    assert payload["positions"] == after.positions
    assert fake.edits[0]["document"] == -1


def test_appended_text_starts_on_a_line_of_its_own(icae, fake, other_memory_file, more) -> None:
    icae("append", other_memory_file, more, "--ratio", 2)
    assert fake.edits[0]["text"].startswith("\nAnd then")
    assert fake.edits[0]["ratio"] == 2.0


def test_memory_stays_as_it_is_if_another_output_is_named(
    icae, fake, memory_file, more, tmp_path
) -> None:
    content = memory_file.read_bytes()
    target = tmp_path / "longer.icae"
    result = icae("append", memory_file, more, "-o", target)

    assert result.exit_code == 0, result.output
    assert "64 in 5 spans" in result.stdout
    assert "1 span in" in result.stdout
    assert memory_file.read_bytes() == content
    assert Memory.load(target).tokens == 64
    assert icae("append", memory_file, more, "-o", target).exit_code == 1


def test_deleted_characters_are_gone(icae, fake, memory_file) -> None:
    result = icae("edit", memory_file, "--delete", "4:10")
    assert result.exit_code == 0, result.output
    assert str(Memory.load(memory_file).documents[0].source) == TEXT[:4] + TEXT[10:]


def test_replaced_characters_give_way_to_the_text_of_a_file(icae, fake, memory_file, more) -> None:
    result = icae("edit", memory_file, "--replace", ":80", more)
    assert result.exit_code == 0, result.output
    assert fake.edits[0]["range"] == (0, 80)
    source = str(Memory.load(memory_file).documents[0].source)
    assert source == fake.edits[0]["text"] + TEXT[80:]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--delete", "1:2", "--replace", "1:2", "x.txt"],
        ["--delete", "12"],
        ["--delete", "a:b"],
        ["--delete", "-3:4"],
        ["--delete", "1:\u0664"],
    ],
)
def test_edit_without_one_sound_range_is_wrong_usage(icae, no_engine, memory_file, options) -> None:
    assert icae("edit", memory_file, *options).exit_code == 2


@pytest.mark.parametrize("command", ["append", "edit"])
def test_memory_without_text_is_refused_before_a_model_is_loaded(
    icae, no_engine, bare_memory_file, more, command
) -> None:
    options = [more] if command == "append" else ["--delete", "1:2"]
    result = icae(command, bare_memory_file, *options, "--json")
    assert result.exit_code == 1
    assert "no source text" in json.loads(result.stdout)["error"]["got"]


def test_document_that_is_not_there_is_refused(icae, no_engine, memory_file, more) -> None:
    result = icae("append", memory_file, more, "--document", 1, "--json")
    assert json.loads(result.stdout)["error"]["message"] == "The memory has no such document."


def test_slice_holds_whole_spans(icae, no_engine, memory_file, tmp_path) -> None:
    target = tmp_path / "part.icae"
    result = icae("slice", memory_file, "100:", "-o", target, "--json")

    assert result.exit_code == 0, result.output
    payload = json.loads(result.stdout)
    part = Memory.load(target)
    assert payload["documents"] == [part.documents[0].name]
    assert payload["documents"][0].startswith("notes.txt[")
    assert TEXT[100:] in str(part.documents[0].source)
    assert payload["spans"] == len(part.spans) == 3


def test_range_outside_the_text_is_an_error(icae, no_engine, memory_file, tmp_path) -> None:
    result = icae("slice", memory_file, "0:9999", "-o", tmp_path / "x.icae", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["got"] == "0:9999"


def test_merged_memories_keep_their_documents(
    icae, no_engine, memory_file, other_memory_file, tmp_path
) -> None:
    target = tmp_path / "both.icae"
    result = icae("merge", memory_file, other_memory_file, "-o", target)

    assert result.exit_code == 0, result.output
    assert "notes.txt, other.txt" in result.stdout
    assert Memory.load(target) == Memory.load(memory_file) + Memory.load(other_memory_file)
    again = icae("merge", memory_file, "-o", memory_file, "--force")
    assert again.exit_code == 1
