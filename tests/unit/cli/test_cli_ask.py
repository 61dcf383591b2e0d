from __future__ import annotations

import json

import pytest


def unboxed(text: str) -> str:
    """A usage error without its frame and line breaks."""
    return " ".join(text.replace("│", " ").split())


def test_answer_is_all_that_stdout_gets(icae, fake, memory_file, capsys) -> None:
    fake.finished = False
    result = icae("ask", memory_file, "Who jumps?")
    assert result.exit_code == 0, result.output
    assert result.stdout.removeprefix("a library talks\n") == "A fox, I think.\n"
    assert "22 decoder positions (15 of the memory)" in result.stderr
    assert "5 answer tokens, 1.25 s (first token 0.50 s)" in result.stderr
    assert "cut at --max-new-tokens" in result.stderr


def test_json_describes_one_answer(icae, fake, memory_file) -> None:
    result = icae("ask", memory_file, "Who jumps?", "--json")
    assert json.loads(result.stdout) == {
        "answer": "A fox, I think.",
        "question": "Who jumps?",
        "mode": "memory",
        "tokens": {"memory": 15, "prompt": 22, "answer": 5},
        "seconds": 1.25,
        "first_token_seconds": 0.5,
        "finished": True,
        "runtime": "fake bfloat16",
    }


def test_several_memories_are_concatenated_in_order(
    icae, fake, memory_file, other_memory_file
) -> None:
    icae("ask", memory_file, other_memory_file, "Who?", "--max-new-tokens", "9")
    asked = fake.asked[0]
    assert [d.name for d in asked["memory"].documents] == ["notes.txt", "other.txt"]
    assert asked["max_new_tokens"] == 9


def test_memories_of_two_models_are_refused(
    icae, no_engine, memory_file, build_memory, tmp_path
) -> None:
    from dataclasses import replace

    stranger = build_memory()
    path = tmp_path / "stranger.icae"
    replace(stranger, provenance=replace(stranger.provenance, adapter_hash="ffff")).save(path)
    result = icae("ask", memory_file, path, "Who?", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "IncompatibleMemoryError"


def test_full_context_is_the_kept_text(icae, fake, memory_file, other_memory_file) -> None:
    result = icae("ask", memory_file, other_memory_file, "Who?", "--full-context", "--json")
    payload = json.loads(result.stdout)
    assert payload["mode"] == "full-context"
    assert payload["tokens"]["memory"] == 68
    assert fake.asked[0]["text"].endswith("look on. \n\nPack my box with five dozen liquor jugs.")


def test_full_context_without_text_is_refused_before_the_model_is_loaded(
    icae, no_engine, memory_file, bare_memory_file
) -> None:
    result = icae("ask", memory_file, bare_memory_file, "Who?", "--full-context")
    assert result.exit_code == 1
    assert "no source text for notes.txt" in result.stderr
    assert "--no-source" in result.stderr


@pytest.mark.parametrize("suffix", [".icae", ".memory", " with a blank.icae"])
def test_memory_file_in_place_of_the_question_is_noticed(
    icae, no_engine, memory_file, tmp_path, suffix
) -> None:
    other = memory_file.rename(tmp_path / f"notes{suffix}")
    result = icae("ask", other)
    assert result.exit_code == 2
    assert "no question" in unboxed(result.stderr)


def test_misspelt_memory_file_in_place_of_the_question_is_noticed(icae, no_engine) -> None:
    assert "no question" in unboxed(icae("ask", "a.icae", "absent.icae").stderr)


def test_question_that_happens_to_name_a_file_is_a_question(
    icae, fake, memory_file, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "summary").write_text("not a memory")
    assert icae("ask", memory_file, "summary").exit_code == 0
    assert fake.asked[0]["question"] == "summary"


def test_very_long_question_reaches_the_engine(icae, fake, memory_file) -> None:
    question = "why " * 5000
    assert icae("ask", memory_file, question).exit_code == 0
    assert fake.asked[0]["question"] == question


def test_question_without_a_memory_is_a_usage_error(icae, no_engine) -> None:
    result = icae("ask", "Who jumps?")
    assert result.exit_code == 2
    assert "no memory file" in unboxed(result.stderr)


def test_question_that_is_no_text_is_refused(icae, no_engine, memory_file) -> None:
    result = icae("ask", memory_file, "caf\udce9", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "InputError"


def test_refused_question_is_reported(icae, fake, memory_file) -> None:
    result = icae("ask", memory_file, "too long", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["got"] == "900 tokens"


def test_questions_are_read_from_a_file_one_a_line(icae, fake, memory_file, tmp_path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("Who?\n\n   \n  Where?\n", encoding="utf-8")
    payload = json.loads(icae("ask", memory_file, "--questions", path, "--json").stdout)
    assert [a["question"] for a in payload["answers"]] == ["Who?", "Where?"]
    assert payload["mode"] == "memory"
    assert payload["memories"] == [str(memory_file)]
    assert fake.asked[1]["history"] == []


def test_questions_from_standard_input_are_printed_with_their_answers(
    icae, fake, memory_file
) -> None:
    result = icae("ask", memory_file, "--questions", "-", stdin="Who?\nWhere?\n")
    text = result.stdout.replace("a library talks\n", "")
    assert text == "Q: Who?\nA: A fox, I think.\n\nQ: Where?\nA: A fox, I think.\n"


@pytest.mark.parametrize("content", [b"\n \n", b"\xff\xfe\xff"])
def test_unusable_questions_are_refused(icae, no_engine, memory_file, tmp_path, content) -> None:
    path = tmp_path / "questions.txt"
    path.write_bytes(content)
    for questions, stdin in ((path, None), ("-", content)):
        result = icae("ask", memory_file, "--questions", questions, "--json", stdin=stdin)
        assert result.exit_code == 1
        assert json.loads(result.stdout)["error"]["type"] == "InputError"
