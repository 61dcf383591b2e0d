"""What other programs get from `icae.connect`, through the real libraries."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.clients.conftest import LONG, MODEL
from tests.recorded import world

NOTES = {"fox.txt": LONG, "bell.txt": "The bell rings at noon. The mill is by the river. " * 12}
QUESTION = "Where is the bell?"


def library(module: str) -> Any:
    return pytest.importorskip(module, reason=f"{module} is in `make test-clients` alone")


@pytest.fixture(scope="module")
def engine() -> Any:
    return importlib.import_module("icae").load(
        world.ADAPTER, base=str(world.BASE), dtype="float32"
    )


@pytest.fixture
def store(engine: Any, tmp_path: Path) -> Path:
    stores = importlib.import_module("icae.store")
    path = tmp_path / "library.db"
    with stores.create_store(path) as opened:
        for name, text in NOTES.items():
            opened.add([stores.NewMemory(name=name, memory=engine.compress(text, name=name))])
    return path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `icae mcp`, in a process of its own, tells an MCP client."""
    mcp, stdio, anyio = library("mcp"), library("mcp.client.stdio"), library("anyio")
    store = tmp_path_factory.mktemp("mcp") / "library.db"
    command = ["-m", "icae", "mcp", "--store", str(store), *MODEL]
    own = dict(os.environ)
    server = mcp.StdioServerParameters(command=sys.executable, args=command, env=own)

    async def session() -> dict[str, Any]:
        async with mcp.Client(stdio.stdio_client(server)) as client:
            call = client.call_tool
            return {
                "tools": (await client.list_tools()).tools,
                "added": [
                    await call("add_document", {"name": name, "text": text})
                    for name, text in NOTES.items()
                ],
                "listed": await call("list_documents", {}),
                "one": await call("ask", {"question": QUESTION, "memory": "fox.txt"}),
                "all": await call("ask", {"question": QUESTION}),
                "absent": await call("ask", {"question": QUESTION, "memory": "other.txt"}),
                "blank": await call("add_document", {"name": "blank", "text": " "}),
            }

    return dict(anyio.run(session))


def test_mcp_tools(told: dict[str, Any]) -> None:
    assert [tool.name for tool in told["tools"]] == ["add_document", "ask", "list_documents"]
    assert all(tool.description for tool in told["tools"])


def test_mcp_adds_and_lists(told: dict[str, Any], engine: Any) -> None:
    added = [one.structured_content for one in told["added"]]
    for (name, text), one in zip(NOTES.items(), added, strict=True):
        memory = engine.compress(text)
        assert one["names"] == [name]
        assert (one["tokens"], one["positions"]) == (memory.tokens, memory.positions)
        assert one["fidelity"] == pytest.approx(memory.fidelity)
    listed = told["listed"].structured_content["result"]
    assert sorted(listed, key=lambda one: list(NOTES).index(one["names"][0])) == added


def test_mcp_asks(told: dict[str, Any], engine: Any) -> None:
    expected = engine.ask(engine.compress(NOTES["fox.txt"]), QUESTION).text
    assert told["one"].structured_content == {"answer": expected, "sources": ["fox.txt"]}
    found = told["all"].structured_content
    assert found["answer"] not in ("", expected)
    assert all(source.startswith("bell.txt [") for source in found["sources"])


def test_mcp_says_what_is_wrong(told: dict[str, Any]) -> None:
    for name, words in {"absent": "There is no such memory", "blank": "blank"}.items():
        assert told[name].is_error
        (said,) = told[name].content
        assert words in said.text
    assert "icae store list" in told["absent"].content[0].text


def test_llm_answers_from_a_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    talk = library("llm").get_model("icae").conversation()
    reader = importlib.import_module("icae").load(world.ADAPTER, base=str(world.BASE))
    memory = reader.compress(LONG, name="fox.txt")
    memory.save(tmp_path / "fox.icae")
    options = {"memory": str(tmp_path / "fox.icae")}
    options |= {"adapter": str(world.ADAPTER), "base": str(world.BASE)}
    first = talk.prompt("Where is the fox?", **options)
    pieces = [piece for piece in first if piece]
    second = talk.prompt("And the hen?", system="Be short.", max_new_tokens=8, **options)
    second.text()
    expected = reader.ask(memory, "Where is the fox?")
    assert "".join(pieces).strip() == expected.text
    assert len(pieces) > 1
    assert first.usage().input == expected.prompt_tokens
    turns = [("Where is the fox?", expected.text)]
    then = reader.ask(memory, "Be short.\n\nAnd the hen?", history=turns, max_new_tokens=8)
    assert second.text().strip() == then.text
    assert second.usage().output == then.answer_tokens == 8


def test_llm_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    model = library("llm").get_model("icae")
    with pytest.raises(Exception, match="-o memory"):
        model.prompt("Where?").text()


def test_langchain_retrieves_passages(store: Path) -> None:
    library("langchain_core")
    retriever = importlib.import_module("icae.connect.langchain").StoreRetriever(store=store, k=2)
    found = retriever.invoke(QUESTION)
    assert len(found) == 2
    for one in found:
        own = one.metadata
        assert own["source"] == "bell.txt"
        assert one.page_content == NOTES["bell.txt"][own["char_start"] : own["char_end"]]
    assert found[0].metadata["score"] >= found[1].metadata["score"]
    assert retriever.invoke("zebra") == []


def test_llama_index_reads_nodes_as_memory(engine: Any) -> None:
    schema = library("llama_index.core.schema")
    made = importlib.import_module("icae.connect.llama_index").MemoryPostprocessor(
        engine=engine, max_new_tokens=12
    )
    nodes = [
        schema.NodeWithScore(node=schema.TextNode(text=text, id_=name), score=0.5)
        for name, text in NOTES.items()
    ]
    (node,) = made.postprocess_nodes(nodes, query_str=QUESTION)
    fox, bell = (engine.compress(text) for text in NOTES.values())
    memory = fox + bell
    assert node.text == engine.ask(memory, QUESTION, max_new_tokens=12).text
    assert node.metadata["nodes"] == list(NOTES)
    assert node.metadata["positions"] == memory.positions < memory.tokens / 2
    assert made.postprocess_nodes(nodes) == nodes
    assert "engine" not in made.to_dict()


def langchain_chat(engine: Any, **settings: Any) -> tuple[Any, Any]:
    messages = library("langchain_core.messages")
    made = importlib.import_module("icae.connect.langchain_chat").CompressedChat
    return messages, made(reader=engine, max_new_tokens=8, **settings)


def test_langchain_reads_older_messages_as_memory(engine: Any) -> None:
    messages, chat = langchain_chat(engine, keep_turns=1)
    told = importlib.import_module("icae.decode.conversation").Conversation(
        reader=engine, keep_turns=1
    )
    said = [messages.SystemMessage("Be short.")]
    for number in range(4):
        question = f"Where is fox {number}?"
        said.append(messages.HumanMessage(question))
        answer = chat.invoke(said)
        if not number:
            question = f"Be short.\n\n{question}"
        expected = told.ask(question, max_new_tokens=8)
        assert answer.text == expected.text
        held = answer.response_metadata["memory_positions"]
        assert held == expected.memory_positions
        assert bool(held) == (number > 1)
        assert answer.usage_metadata["input_tokens"] == expected.prompt_tokens
        said.append(answer)
        assert [len(seen) for seen, _ in chat._kept] == [number + 1]
    others = [[messages.HumanMessage(text)] for text in NOTES.values()]
    alone = [engine.ask(None, text, max_new_tokens=8).text for text in NOTES.values()]
    assert [one.text for one in chat.batch(others)] == alone
    again = langchain_chat(engine, keep_turns=1)[1].invoke(said[:-1])
    assert again.response_metadata["memory_positions"] > 0


def test_langchain_talks_about_documents(engine: Any) -> None:
    memory = engine.compress(LONG)
    messages, chat = langchain_chat(engine, documents=memory)
    asked = [messages.HumanMessage("Where is the fox?")]
    answer = chat.invoke(asked)
    assert answer.text == engine.ask(memory, "Where is the fox?", max_new_tokens=8).text
    assert answer.response_metadata["memory_positions"] == memory.positions


def test_langchain_refuses_stop_texts(engine: Any) -> None:
    messages, chat = langchain_chat(engine)
    with pytest.raises(Exception, match="no stop texts"):
        chat.invoke([messages.HumanMessage("Where is the fox?")], stop=["x"])


def test_llama_index_asks_what_left_the_short_term_memory(engine: Any) -> None:
    library("llama_index.core.memory")
    kinds = library("llama_index.core.llms")
    block = importlib.import_module("icae.connect.llama_index_memory").CompressedMemoryBlock(
        reader=engine, max_new_tokens=8
    )
    memory = library("llama_index.core.memory").Memory.from_defaults(
        token_limit=40, token_flush_size=8, tokenizer_fn=str.split, memory_blocks=[block]
    )
    for number in range(6):
        memory.put(kinds.ChatMessage(role="user", content=f"Where is fox number {number}?"))
        memory.put(kinds.ChatMessage(role="assistant", content=f"Fox {number} is in the inn."))
    memory.put(kinds.ChatMessage(role="user", content=QUESTION))
    system, *newest = memory.get()
    told = block._told.older
    assert told is not None
    source = told.documents[0].source
    assert "User: Where is fox number 0?\nAssistant: Fox 0 is in the inn.\n" in source
    assert all(one.content not in source for one in newest)
    answer = engine.ask(told, QUESTION, max_new_tokens=8).text
    assert answer
    assert answer in system.content
    assert "reader" not in block.model_dump()
