"""`icae chat`."""

from __future__ import annotations

import io
import sys

import pytest

from icae.cli.app import app
from icae.cli.chat import PROMPT

FEW = ("--max-new-tokens", 3)


def test_piped_lines_are_turns_without_prompt_characters(icae, loaded, tiny, made, memory_file):
    first = tiny.ask(made["notes"], "Who?", max_new_tokens=3).text
    history = [("Who?", first)]
    second = tiny.ask(made["notes"], "Where?", history=history, max_new_tokens=3).text
    result = icae("chat", memory_file, *FEW, stdin="Who?\n\nWhere?\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{first}\n{second}\n"
    assert PROMPT not in result.stderr


def test_json_is_one_object_with_all_turns(payload, loaded, made, memory_file):
    told = payload("chat", memory_file, *FEW, stdin="Who?\n/reset\nWhere?\n")
    assert [turn["question"] for turn in told["turns"]] == ["Who?", "Where?"]
    # forgotten turns are not in the prompt
    assert told["turns"][1]["tokens"]["prompt"] - told["turns"][0]["tokens"]["prompt"] < 4
    assert told["turns"][0]["tokens"]["memory"] == made["notes"].positions
    assert (told["memories"], told["turns_kept"]) == ([str(memory_file)], 1)
    assert (told["tokens"], told["slots"]) == (made["notes"].tokens, made["notes"].slot_count)


def test_turns_beyond_those_kept_are_compressed_and_reset_forgets_all(payload, loaded, memory_file):
    told = payload("chat", memory_file, "--keep-turns", 1, *FEW, stdin="A?\nB?\nC?\nD?\n")
    read = [turn["tokens"]["memory"] for turn in told["turns"]]
    assert read[0] == read[1] < read[2] < read[3]
    assert (told["turns_kept"], len(told["turns"])) == (2, 4)
    assert told["turns_compressed_tokens"] > 0
    told = payload("chat", memory_file, "--keep-turns", 0, *FEW, stdin="A?\nB?\n/reset\nC?\n")
    read = [turn["tokens"]["memory"] for turn in told["turns"]]
    assert read[0] == read[2] < read[1]


def test_commands_of_a_chat_go_to_stderr(icae, loaded, memory_file, other_memory_file):
    lines = "/exit\n/etc/passwd is what?\n/context\n/quit\nWho?\n"
    result = icae("chat", memory_file, other_memory_file, *FEW, stdin=lines)
    assert "There is no /exit" in result.stderr
    assert "notes.txt, other.txt: " in result.stderr
    assert "turns kept word for word: 1" in result.stderr
    assert result.stdout.count("\n") == 1


def test_turn_that_is_refused_ends_a_piped_chat(error, loaded, memory_file):
    told = error("chat", memory_file, stdin="why " * 5000 + "\nWho?\n")
    assert told["type"] == "InputError"
    assert error("chat", memory_file, stdin=b"\xff\xff\n")["type"] == "InputError"


def test_turn_that_is_refused_does_not_end_a_typed_chat(
    loaded, memory_file, terminal, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdin", terminal("why " * 5000 + "\nWho?\n"))
    app(["chat", str(memory_file), "--max-new-tokens", "3"], standalone_mode=False)
    out, err = capsys.readouterr()
    assert out.strip()
    assert err.count(PROMPT) == 3
    assert "/quit ends" in err


@pytest.mark.parametrize(("typed_at", "prompt"), [("terminal", PROMPT), ("pipe", "")])
def test_prompt_is_on_stdout_only_if_that_is_a_terminal(
    loaded, memory_file, terminal, monkeypatch, typed_at, prompt
):
    prompts = []

    def typed(prompt: str = "") -> str:
        prompts.append(prompt)
        raise EOFError

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(sys, "stdin", terminal())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "stdout", terminal() if typed_at == "terminal" else io.StringIO())
    app(["chat", str(memory_file)], standalone_mode=False)
    assert prompts == [prompt]
