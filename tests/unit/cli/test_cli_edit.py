"""`icae append`, `edit`, `slice` and `merge`."""

from __future__ import annotations

import pytest

from icae.memory import Memory


@pytest.fixture
def more(tmp_path):
    path = tmp_path / "more.txt"
    path.write_text("And then it rained.")
    return path


def source(path) -> str:
    return Memory.load(path).documents[0].source


def test_appended_text_ends_the_document_and_replaces_the_file(
    payload, loaded, made, memory_file, more
):
    told = payload("append", memory_file, more)
    after = Memory.load(memory_file)
    assert source(memory_file) == made["notes"].documents[0].source + "And then it rained."
    assert after.spans[0] == made["notes"].spans[0]
    assert (told["output"], told["tokens"]) == (str(memory_file), after.tokens)
    assert 0 < told["encoded_spans"] < len(after.spans)
    assert told["positions"] == after.positions


def test_appended_text_starts_on_its_own_line(payload, loaded, other_memory_file, more):
    payload("append", other_memory_file, more, "--ratio", 2)
    assert source(other_memory_file).endswith("jugs.\nAnd then it rained.")
    assert Memory.load(other_memory_file).spans[-1].ratio == 2


def test_memory_stays_as_it_is_if_another_output_is_named(
    icae, loaded, other_memory_file, more, tmp_path
):
    content, target = other_memory_file.read_bytes(), tmp_path / "longer.icae"
    result = icae("append", other_memory_file, more, "-o", target)
    assert result.exit_code == 0, result.output
    assert "encoded" in result.stdout
    assert other_memory_file.read_bytes() == content
    assert icae("append", other_memory_file, more, "-o", target).exit_code == 1


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
def test_edit_without_one_sound_range_is_wrong_usage(usage, no_model, memory_file, options):
    usage("edit", memory_file, *options)


@pytest.mark.parametrize("call", [["append"], ["edit", "--delete", "1:2"]])
def test_what_has_no_text_or_no_document_is_refused_before_a_model_is_loaded(
    error, no_model, memory_file, bare_memory_file, more, call
):
    command, *options = call
    options = options or [more]
    assert "no source text" in error(command, bare_memory_file, *options)["got"]
    told = error(command, memory_file, *options, "--document", 1)
    assert told["message"] == "The memory has no such document."


def test_output_that_would_destroy_something_is_refused(error, no_model, memory_file, tmp_path):
    (tmp_path / "link").symlink_to(memory_file)
    for path in (memory_file, tmp_path / "link"):
        told = error("merge", memory_file, "-o", path, "--force")
        assert told["message"] == "The output is the input itself."
    assert "is a folder" in error("merge", memory_file, "-o", tmp_path, "--force")["message"]
    told = error("merge", memory_file, "-o", tmp_path / "absent" / "x.icae")
    assert told["got"] == str(tmp_path / "absent")


def test_what_was_appended_while_the_model_was_loaded_stays(
    icae, loaded, tiny, made, memory_file, more, monkeypatch
):
    def load(*_: object, **options: object) -> object:
        tiny.append(made["notes"], "Somebody else was faster.").save(memory_file)
        return tiny

    monkeypatch.setattr("icae.engine.load", load)
    result = icae("append", memory_file, more)
    assert result.exit_code == 0, result.output
    assert source(memory_file).endswith("Somebody else was faster.\nAnd then it rained.")


@pytest.mark.parametrize("call", ["append", "edit", "refine"])
def test_change_that_lost_a_race_is_an_error_and_the_other_change_stays(
    error, loaded, tiny, made, memory_file, more, monkeypatch, call
):
    def changed_meanwhile(*arguments: object, **options: object) -> Memory:
        made["other"].save(memory_file)
        return made["notes"]

    method = {"append": "append", "edit": "replace", "refine": "refine"}[call]
    monkeypatch.setattr(type(tiny), method, changed_meanwhile)
    options = {"append": [more], "edit": ["--delete", "1:4"], "refine": []}[call]
    if call == "refine":
        monkeypatch.setattr(
            type(tiny), method, lambda *_, **__: iter([changed_meanwhile(), made["notes"]])
        )
    told = error(call, memory_file, *options)
    assert "changed by another program" in told["message"]
    assert Memory.load(memory_file) == made["other"]
