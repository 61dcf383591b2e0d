"""`icae ask`: of memory files, and of a store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from icae.cli.ask import CITATION_FIELDS

FEW = ("--max-new-tokens", 4)
NEEDLE = "A golden needle lies in the hay. "


@pytest.fixture
def store(payload, loaded, tmp_path, monkeypatch):
    """A store of three documents."""
    monkeypatch.chdir(tmp_path)
    texts = {"hay": NEEDLE, "fox": "The brown fox jumps.", "moon": "Some moons circle planets."}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    payload("store", "add", "hay.txt", "fox.txt", "moon.txt", "-s", "memories.db")
    return "memories.db"


def test_answer_is_all_that_stdout_gets(icae, loaded, tiny, made, memory_file):
    expected = tiny.ask(made["notes"], "Who jumps?", max_new_tokens=4)
    result = icae("ask", memory_file, "Who jumps?", *FEW)
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip("\n") == expected.text.rstrip("\n")
    assert f"({expected.memory_positions} of the memory), 4 answer tokens" in result.stderr
    assert "cut at --max-new-tokens" in result.stderr
    assert "torch float32" in result.stderr


def test_full_context_without_text_is_refused_before_the_model_is_loaded(
    error, no_model, other_memory_file, bare_memory_file
):
    told = error("ask", other_memory_file, bare_memory_file, "Who?", "--full-context")
    assert told["got"] == "no source text for notes.txt"
    assert "--no-source" in told["expected"]


@pytest.mark.parametrize("suffix", [".icae", ".memory", " with a blank.icae"])
def test_memory_file_in_place_of_the_question_is_noticed(
    usage, no_model, memory_file, tmp_path, suffix
):
    other = memory_file.rename(tmp_path / f"notes{suffix}")
    assert "no question" in usage("ask", other)
    assert "no question" in usage("ask", "a.icae", "absent.icae")


def test_question_that_happens_to_name_a_file_is_a_question(
    payload, loaded, memory_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "summary").write_text("not a memory")
    assert payload("ask", memory_file, "summary", *FEW)["question"] == "summary"


def test_empty_answer_comes_with_what_to_do(
    icae, loaded, tiny, memory_file, bare_memory_file, monkeypatch
):
    ask = type(tiny).ask

    def says_nothing(*arguments: Any, **options: Any) -> Any:
        return replace(ask(*arguments, **{**options, "on_text": None}), text=" ")

    monkeypatch.setattr(type(tiny), "ask", says_nothing)
    told = icae("ask", memory_file, "Who?", *FEW).stderr
    for way in ("The answer is empty", "--full-context", "--min-fidelity", "--store"):
        assert way in told
    assert "--full-context" not in icae("ask", bare_memory_file, "Who?", *FEW).stderr


def test_wrong_calls_are_told_apart(usage, error, no_model, memory_file, tmp_path):
    assert "no memory file" in usage("ask", "Who jumps?")
    assert "a question is missing" in usage("ask")
    assert "a question is missing" in usage("ask", "--store", "x.db")
    assert "takes the place" in usage("ask", memory_file, "Who?", "--store", "x.db")
    assert "a note is of memory files" in usage("ask", "Who?", "-s", "x.db", "--note")
    assert "passages of a --store" in usage("ask", memory_file, "Who?", "--budget", 9)
    assert error("ask", memory_file, "caf\udce9")["type"] == "InputError"


def test_questions_are_read_from_a_file_one_a_line(payload, loaded, memory_file, tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text("Who?\n\n   \n  Where?\n", encoding="utf-8")
    told = payload("ask", memory_file, "--questions", path, *FEW)
    assert [answer["question"] for answer in told["answers"]] == ["Who?", "Where?"]
    assert (told["mode"], told["memories"]) == ("memory", [str(memory_file)])


def test_note_of_what_the_slots_lose_stands_before_the_question(
    payload, error, usage, loaded, tiny, tmp_path, bare_memory_file, monkeypatch
):
    monkeypatch.setattr("icae.model.base.load_tokenizer", lambda base: tiny.tokenizer)
    tiny.compress("In 1861 Anna built 17 inns.").save(tmp_path / "inn.icae")
    plain = payload("ask", tmp_path / "inn.icae", "When?", *FEW)
    noted = payload("ask", tmp_path / "inn.icae", "When?", "--note", *FEW)
    assert noted["tokens"]["prompt"] > plain["tokens"]["prompt"]
    assert noted["tokens"]["memory"] == plain["tokens"]["memory"]
    assert noted["question"] == "When?"
    assert "Leave --note out" in error("ask", bare_memory_file, "When?", "--note")["fix"]
    assert "a note is" in usage("ask", bare_memory_file, "When?", "--note", "--full-context")


def test_store_answers_from_the_best_passages_and_cites_them(icae, payload, store):
    told = payload("ask", "--store", store, "Where is the needle?", *FEW)
    (source,) = told["sources"]
    assert (source["document"], source["char_start"]) == ("hay.txt", 0)
    assert set(source) == set(CITATION_FIELDS)
    assert told["tokens"]["memory"] == source["positions"]
    result = icae("ask", "--store", store, "Where is the needle?", *FEW)
    assert result.stdout == told["answer"] + "\n"
    assert f"hay.txt [0:{source['char_end']}]  A golden" in result.stderr


def test_every_question_to_a_store_has_its_own_sources(payload, store, tmp_path):
    (tmp_path / "questions.txt").write_text("Needle?\nFox?\n")
    told = payload("ask", "-s", store, "--questions", "questions.txt", *FEW)
    documents = [[one["document"] for one in answer["sources"]] for answer in told["answers"]]
    assert (documents, told["store"]) == ([["hay.txt"], ["fox.txt"]], store)


def test_full_context_of_a_store_is_the_text_of_the_passages(payload, tiny, store):
    told = payload("ask", "-s", store, "golden", "--full-context", *FEW)
    assert told["tokens"]["memory"] == tiny.count_tokens(NEEDLE)


def test_budget_below_a_passage_is_an_error(error, store):
    assert "budget is too small" in error("ask", "-s", store, "needle", "--budget", 1)["message"]


@pytest.mark.parametrize("command", ["ask", "reconstruct", "chat"])
def test_runtime_and_server_reach_what_opens_the_decoder(
    icae, usage, error, loaded, memory_file, command, monkeypatch
):
    call = (command, memory_file, *(["Who?"] if command == "ask" else []))
    few = FEW if command == "ask" else ()
    monkeypatch.setenv("ICAE_ENGINE_KEY", "k3y")
    monkeypatch.setenv("ICAE_ENGINE_SECRET", "s3cret")
    assert icae(*call, *few, stdin="").exit_code == 0
    icae(*call, *few, "--runtime", "torch", stdin="")
    icae(*call, *few, "--engine", "http://gpu:8000", "--engine-model", "m", stdin="")
    assert [asked["runtime"] for asked in loaded] == ["auto", "torch", "auto"]
    server = loaded[2]["engine"]
    assert (server.base_url, server.model) == ("http://gpu:8000/v1", "m")
    assert (server.api_key, server.secret) == ("k3y", "s3cret")
    assert "there is no --engine" in usage(*call, "--engine-model", "m")
    assert "no URL" in error(*call, "--engine", "gpu:8000", stdin="")["message"]
    assert (
        "auto, torch, llamacpp, vllm" in error(*call, "--runtime", "abacus", stdin="")["expected"]
    )


def test_kv_cache_is_kept_renewed_and_never_in_the_way(
    icae, usage, loaded, memory_file, other_memory_file
):
    kept = memory_file.with_name("notes.icae.torch.kv")
    assert icae("ask", memory_file, "Who?", *FEW).exit_code == 0
    assert not kept.exists()
    assert "kept in" in icae("ask", memory_file, "Who?", "--kv", *FEW).stderr
    assert "kept in" not in icae("ask", memory_file, "Who?", "--kv", *FEW).stderr
    kept.write_text("damaged")
    assert "is not used" in icae("ask", memory_file, "Who?", *FEW).stderr
    assert kept.read_bytes() != b"damaged"
    kept.unlink()
    kept.mkdir()
    stubborn = icae("chat", memory_file, "--kv", stdin="")
    assert stubborn.exit_code == 0
    assert "No key-value cache was kept" in stubborn.stderr
    assert "one memory file" in usage("ask", memory_file, other_memory_file, "Who?", "--kv")
    assert "one memory file" in usage("ask", memory_file, "Who?", "--kv", "--full-context")


def test_compress_keeps_a_cache_when_asked(icae, loaded, document):
    assert icae("compress", document, "--kv").exit_code == 0
    assert document.with_name("whale.icae.torch.kv").exists()
