from __future__ import annotations

import io
import json
import sys

from icae.cli import chat as chat_module
from icae.cli.chat import PROMPT, chat


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def answers(result) -> str:
    return result.stdout.replace("a library talks\n", "")


def test_piped_lines_are_turns_without_prompt_characters(icae, fake, memory_file) -> None:
    result = icae("chat", memory_file, stdin="Who?\n\nWhere?\n")
    assert result.exit_code == 0, result.output
    assert answers(result) == "A fox, I think.\nA fox, I think.\n"
    assert PROMPT not in result.stderr


def test_each_turn_builds_on_those_before(icae, fake, memory_file) -> None:
    icae("chat", memory_file, "--max-new-tokens", 3, stdin="Who?\nWhere?\n")
    assert fake.asked[0]["history"] == []
    assert fake.asked[1]["history"] == [("Who?", "A fox, I think.")]
    assert fake.asked[1]["max_new_tokens"] == 3


def test_reset_forgets_the_turns(icae, fake, memory_file) -> None:
    icae("chat", memory_file, stdin="Who?\n/reset\nWhere?\n")
    assert fake.asked[1]["history"] == []


def test_quit_ends_before_the_rest_of_the_input(icae, fake, memory_file) -> None:
    assert icae("chat", memory_file, stdin="/quit\nWho?\n").exit_code == 0
    assert fake.asked == []


def test_context_is_told_on_stderr(icae, fake, memory_file, other_memory_file) -> None:
    result = icae("chat", memory_file, other_memory_file, stdin="Who?\n/context\n")
    assert "notes.txt, other.txt: 68 tokens in 17 slots (4.00x)" in result.stderr
    assert "17 kB instead of 68 kB; turns remembered: 1" in result.stderr
    assert answers(result) == "A fox, I think.\n"


def test_unknown_word_after_a_slash_is_not_asked(icae, fake, memory_file) -> None:
    result = icae("chat", memory_file, stdin="/exit\n/etc/passwd is what?\n")
    assert "There is no /exit" in result.stderr
    assert [turn["question"] for turn in fake.asked] == ["/etc/passwd is what?"]


def test_json_is_one_object_with_all_turns(icae, fake, memory_file) -> None:
    result = icae("chat", memory_file, "--json", stdin="Who?\n/reset\nWhere?\n")
    payload = json.loads(result.stdout)
    assert [turn["question"] for turn in payload["turns"]] == ["Who?", "Where?"]
    assert payload["turns"][0]["tokens"] == {"memory": 15, "prompt": 22, "answer": 5}
    assert payload["memories"] == [str(memory_file)]


def test_refused_turn_ends_a_piped_chat_with_1(icae, fake, memory_file) -> None:
    result = icae("chat", memory_file, "--json", stdin="too long\nWho?\n")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "InputError"
    assert fake.asked == []


def test_input_that_is_no_text_is_an_error(icae, fake, memory_file) -> None:
    result = icae("chat", memory_file, "--json", stdin=b"\xff\xff\n")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "InputError"


def test_refused_turn_does_not_end_a_typed_chat(fake, memory_file, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("too long\nWho?\n"))
    chat([memory_file], as_json=False)
    out, err = capsys.readouterr()
    assert out.endswith("A fox, I think.\n")
    assert "The question is too long." in err
    assert err.count(PROMPT) == 3


def test_prompt_is_on_stdout_only_if_that_is_a_terminal(fake, memory_file, monkeypatch) -> None:
    prompts = []

    def typed(prompt: str = "") -> str:
        prompts.append(prompt)
        raise EOFError

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for stdout in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stdout)
        chat_module.chat([memory_file], as_json=False)
    assert prompts == [PROMPT, ""]
