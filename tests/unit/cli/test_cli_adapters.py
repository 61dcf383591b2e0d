"""Memories of an adapter in the package that is not the default one: read, and upgraded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import icae as package
from icae.cli.app import app
from icae.engine import Engine
from icae.memory import Memory
from icae.model import adapter_files
from icae.model.adapter import save_adapter
from icae.store import NewMemory, create_store, open_store

TEXT = "The inner thing is in the thin tin: a thief ran there, and the end is near.\n"
CPU = ("--device", "cpu", "--dtype", "float32")
FEW = ("--max-new-tokens", 4)


@pytest.fixture(scope="module")
def old(tmp_path_factory, build_model, tokenizer, info_for):
    """The engine of one of two adapters."""
    folder = tmp_path_factory.mktemp("package")
    for name, tokens in (("new", 2), ("old", 1)):
        model = build_model(framing="around", objective_tokens=tokens)
        model.decoder.save_pretrained(folder / "base")
        tokenizer.save_pretrained(folder / "base")
        info = info_for(model, tokenizer, name=name, base=str(folder / "base"))
        save_adapter(model, info, folder / "adapters" / name)
    return package.load(folder / "adapters/old", device="cpu", dtype="float32")


@pytest.fixture(autouse=True)
def adapters(old, tmp_path, monkeypatch):
    """The adapters in the package; the default one is the other."""
    folder = Path(old.provenance.base_model).parent / "adapters"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adapter_files, "ADAPTERS", folder)
    monkeypatch.setattr(adapter_files, "DEFAULT_ADAPTER", "new")
    return folder


@pytest.fixture
def memory(old):
    """A memory that the adapter made, in old.icae."""
    made = old.compress(TEXT, name="old.txt")
    made.save("old.icae")
    Path("more.txt").write_text("The end.")
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        ("append", "old.icae", "more.txt", *CPU),
        ("edit", "old.icae", "--delete", "0:4", *CPU),
        ("refine", "old.icae", "--steps", 1, *CPU),
        ("reconstruct", "old.icae", "--span", 0, *CPU),
        ("compress", "more.txt", "-o", "old.icae", "--resume", "--min-fidelity", ".1", *CPU),
    ],
    ids=lambda arguments: arguments[0],
)
def test_command_takes_the_adapter_that_the_memory_names(payload, memory, arguments):
    if "--resume" in arguments:
        Path("more.txt").write_text(TEXT)
        arguments = (*arguments, "--prefer", "speed")
    payload(*arguments)

    assert Memory.load("old.icae").provenance == memory.provenance


def test_questions_and_chats_are_answered_by_it(payload, old, memory):
    expected = old.ask(memory, "Who ran?", max_new_tokens=4).text

    assert payload("ask", "old.icae", "Who ran?", *FEW, *CPU)["answer"] == expected
    (turn,) = payload("chat", "old.icae", *FEW, *CPU, stdin="Who ran?\n")["turns"]
    assert turn["answer"] == expected


def test_each_question_to_a_store_is_answered_by_the_adapter_of_the_best_passage(payload, memory):
    Path("new.txt").write_text("A golden needle lies in the hay.")
    Path("moon.txt").write_text("Some moons circle planets.")
    payload("store", "add", "old.icae", "new.txt", "moon.txt", "-s", "m.db", *CPU)
    Path("asked.txt").write_text("Golden needle?\nWhich thief?\n")
    told = payload("ask", "--store", "m.db", "--questions", "asked.txt", *FEW, *CPU)

    cited = [[source["document"] for source in one["sources"]] for one in told["answers"]]
    assert cited == [["new.txt"], ["old.icae"]]


def test_python_reads_a_memory_with_the_adapter_that_it_names(old, memory):
    expected = old.ask(memory, "Who ran?", max_new_tokens=4).text
    on_cpu = {"device": "cpu", "dtype": "float32"}

    reader = package.open_reader(made_by=memory.provenance, runtime="torch", **on_cpu)  # type: ignore[arg-type]
    assert (reader.name, reader.ask(memory, "Who ran?", max_new_tokens=4).text) == ("old", expected)
    assert package.load(made_by=memory.provenance, **on_cpu).name == "old"  # type: ignore[arg-type]
    assert package.load(**on_cpu).name == "new"  # type: ignore[arg-type]


def test_adapter_that_is_named_is_taken_whatever_the_memory_says(error, memory, adapters):
    told = error("ask", "old.icae", "Who ran?", "--adapter", adapters / "new", *CPU)

    assert "adapter differs" in told["message"]
    assert "icae upgrade" in told["fix"]


def test_memory_of_an_adapter_elsewhere_is_refused_with_what_there_is(error, memory):
    maker = replace(memory.provenance, adapter="mine", adapter_hash="f" * 64)
    replace(memory, provenance=maker).save("mine.icae")
    told = error("ask", "mine.icae", "Who ran?", *CPU)

    assert told["type"] == "IncompatibleMemoryError"
    assert told["got"] == f"adapter mine ({'f' * 64})"
    assert told["expected"].startswith("new (")
    assert "--adapter" in told["fix"]


def test_server_loads_the_adapter_that_made_its_memories(icae, payload, memory, monkeypatch):
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)
    payload("store", "add", "old.icae", "-s", "old.db")
    served = [payload("serve", "-s", "old.db", "--port", 0, *CPU)["model"]]
    served += [payload("serve", "-s", "empty.db", "--port", 0, *CPU)["model"]]
    payload("store", "add", "more.txt", "-s", "old.db", *CPU)
    mixed = icae("serve", "-s", "old.db", "--port", 0, *CPU)

    assert served == ["old", "new"]
    assert "memories of 2 adapters" in mixed.stderr
    assert "Serving new" in mixed.stderr


def shape(memory: Memory) -> list[Any]:
    """How a memory holds its documents."""
    return [
        (document.name, document.source, [(s.char_start, s.kind, s.ratio) for s in document.spans])
        for document in memory.documents
    ]


@pytest.fixture
def mixed(old):
    """Two documents in mixed.icae: one in part verbatim, the other edited."""
    first = old.compress(TEXT, ratio=2, name="first.txt")
    kept = old.verbatim(TEXT, name="first.txt")
    first = first.replace_spans(0, 1, 2, kept.select([1]))
    second = old.append(old.compress("A hen is in the inn.", name="b.txt"), " It hid there.")
    (first + second).save("mixed.icae")
    return first + second


def test_upgrade_compresses_a_file_again_as_it_was_held(payload, icae, mixed):
    planned = payload("upgrade", "mixed.icae", "--dry-run", *CPU)
    assert Memory.load("mixed.icae") == mixed
    told = payload("upgrade", "mixed.icae", *CPU)
    made = Memory.load("mixed.icae")

    assert (planned["dry_run"], planned["upgraded"][0]["adapter_before"]) == (True, "old")
    assert told["upgraded"][0]["fidelity"] == made.fidelity
    assert made.provenance.adapter == "new"
    assert shape(made)[0] == shape(mixed)[0]
    assert [span.kind for span in made.spans[:3]] == ["slots", "tokens", "slots"]
    assert made.documents[1].source == "A hen is in the inn. It hid there."
    assert made.documents[1].token_ids_sha256 is not None
    assert payload("upgrade", "mixed.icae", *CPU)["current"] == 1
    assert "its own" in icae("upgrade", "mixed.icae", *CPU).stdout


def test_upgrade_needs_the_text(error, usage, memory):
    memory.without_source().save("bare.icae")
    told = error("upgrade", "old.icae", "bare.icae", *CPU)

    assert told["got"] == "no source text in bare.icae"
    assert Memory.load("old.icae") == memory
    assert "memory files, or a store" in usage("upgrade")


def test_upgrade_of_a_store_goes_on_where_it_was_stopped(payload, old, memory, monkeypatch):
    bare = old.compress("A hen is in the inn.").without_source()
    with create_store("m.db") as store:
        settings = {"content": "0", "owner": "anna", "title": "T"}
        store.add([NewMemory(name=name, memory=memory) for name in ("a", "b")])
        store.add([NewMemory(name="anna/mem_1", memory=memory, settings=settings)])
        store.add([NewMemory(name="bare", memory=bare)])
    whole = Engine.upgrade

    def stopped(self: Engine, one: Memory, **options: Any) -> Memory:
        monkeypatch.setattr(Engine, "upgrade", interrupted)
        return whole(self, one, **options)

    def interrupted(*_: Any, **__: Any) -> Memory:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "upgrade", stopped)
    assert CliRunner().invoke(app, ["upgrade", "-s", "m.db", *CPU]).exit_code == 130
    monkeypatch.setattr(Engine, "upgrade", whole)
    told = payload("upgrade", "--store", "m.db", *CPU)
    assert (len(told["upgraded"]), told["current"], told["without_text"]) == (1, 1, ["bare"])

    with open_store("m.db") as store:
        by_name = {name: record for record in store.records() for name in record.names}
        assert store.verify() == []
    makers = {name: record.provenance.adapter for name, record in by_name.items()}
    assert makers == {"a": "new", "b": "new", "anna/mem_1": "new", "bare": "old"}
    assert by_name["a"].key == by_name["b"].key
    assert by_name["a"].settings == {"ratio": 4.0, "verify": True}
    assert by_name["anna/mem_1"].settings["title"] == "T"
    assert by_name["anna/mem_1"].settings["content"] == by_name["anna/mem_1"].sha256
