from __future__ import annotations

import io
import json
import sys

from icae.cli.app import app
from icae.cli.chat import PROMPT
from icae.cli.options import DecoderOptions


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


def test_turns_beyond_those_kept_are_compressed_behind_the_documents(
    icae, fake, memory_file
) -> None:
    result = icae("chat", memory_file, "--keep-turns", 1, "--json", stdin="A?\nB?\nC?\nD?\n")

    assert [turn["history"] for turn in fake.asked] == [
        [],
        [("A?", fake.reply)],
        [("B?", fake.reply)],
        [("C?", fake.reply)],
    ]
    assert [d.name for d in fake.asked[1]["memory"].documents] == ["notes.txt"]
    first, second = (f"User: {question}\nAssistant: {fake.reply}\n" for question in ("A?", "B?"))
    documents = fake.asked[3]["memory"].documents
    assert [d.name for d in documents] == ["notes.txt", "conversation"]
    assert documents[1].source == first + second
    assert [made["text"] for made in fake.compressed] == [first]
    assert [made["text"] for made in fake.edits] == [second]
    payload = json.loads(result.stdout)
    assert payload["turns_kept"] == 2
    assert payload["turns_compressed_tokens"] == documents[1].tokens
    assert len(payload["turns"]) == 4


def test_a_real_model_talks_on_about_turns_that_were_compressed(
    icae, build_engine, monkeypatch, tmp_path
) -> None:
    engine = build_engine(layout="uniform-encoder")
    monkeypatch.setattr(DecoderOptions, "open", lambda self: engine)
    engine.compress("the inner thing is in the tin", ratio=4).save(tmp_path / "m.icae")

    lines = "".join(f"the {i}?\n" for i in range(6))
    result = icae(
        *("chat", tmp_path / "m.icae", "--keep-turns", 2, "--max-new-tokens", 4, "--json"),
        stdin=lines,
    )

    assert result.exit_code == 0, result.output
    payload = json.loads(result.stdout)
    read = [turn["tokens"]["memory"] for turn in payload["turns"]]
    assert read[0] == read[1] == read[2] < read[3] < read[4]
    assert payload["turns_kept"] == 3
    assert payload["turns_compressed_tokens"] > 0


def test_no_turn_needs_to_be_kept_word_for_word(icae, fake, memory_file) -> None:
    icae("chat", memory_file, "--keep-turns", 0, stdin="A?\nB?\n")
    assert [turn["history"] for turn in fake.asked] == [[], []]
    assert len(fake.asked[1]["memory"].documents) == 2


def test_reset_forgets_compressed_turns_too(icae, fake, memory_file) -> None:
    icae("chat", memory_file, "--keep-turns", 0, stdin="A?\nB?\n/reset\nC?\n")
    assert len(fake.asked[2]["memory"].documents) == 1


def test_quit_ends_before_the_rest_of_the_input(icae, fake, memory_file) -> None:
    assert icae("chat", memory_file, stdin="/quit\nWho?\n").exit_code == 0
    assert fake.asked == []


def test_context_is_told_on_stderr(icae, fake, memory_file, other_memory_file) -> None:
    result = icae("chat", memory_file, other_memory_file, stdin="Who?\n/context\n")
    assert "notes.txt, other.txt: 68 tokens in 17 positions (4.00x)" in result.stderr
    assert "17 kB instead of 68 kB; turns kept word for word: 1" in result.stderr
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
    app(["chat", str(memory_file)], standalone_mode=False)
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
        app(["chat", str(memory_file)], standalone_mode=False)
    assert prompts == [PROMPT, ""]
