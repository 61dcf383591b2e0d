"""Commands run in this process, on a tiny engine and memories that it made."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from icae.cli import engine
from icae.cli.app import app
from icae.cli.options import ModelOptions
from icae.config import ModelConfig
from icae.config.types import Answer, Reconstruction
from icae.decode.reconstruction import joined_text
from icae.errors import InputError
from icae.memory import Memory, Provenance
from word_memories import with_spans, word_memory

TEXT = "The quick brown fox jumps over the lazy dog while five boxing wizards look on. " * 2
OTHER = "Pack my box with five dozen liquor jugs."


@pytest.fixture(scope="session")
def tiny(build_engine: Callable[..., Any]) -> Any:
    """A tiny engine of random weights; its tokens are about letters."""
    return build_engine(layout="uniform-encoder")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> list[dict[str, Any]]:
    """The tiny engine is what commands load; how it was asked for is in the list."""
    asked: list[dict[str, Any]] = []

    def load(adapter: str | None = None, **options: Any) -> Any:
        asked.append({"adapter": adapter, **options})
        return tiny

    monkeypatch.setattr("icae.engine.load", load)
    monkeypatch.setattr("icae.opening.open_reader", load)
    return asked


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a model is asked for."""

    def load(*_: Any, **options: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("icae.engine.load", load)
    monkeypatch.setattr("icae.opening.open_reader", load)


@pytest.fixture
def icae() -> Callable[..., Any]:
    """Run the command line in this process: ``icae("ask", ..., stdin="...")``."""
    runner = CliRunner()

    def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
        return runner.invoke(app, [str(a) for a in arguments], input=stdin, prog_name="icae")

    return run


@pytest.fixture
def payload(icae: Callable[..., Any]) -> Callable[..., Any]:
    """The JSON object of a command that succeeds: ``payload("inspect", path)``."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
        result = icae(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture
def error(icae: Callable[..., Any]) -> Callable[..., Any]:
    """The error of a command that exits with 1, as JSON."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
        result = icae(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 1, result.output
        return json.loads(result.stdout)["error"]

    return run


@pytest.fixture
def usage(icae: Callable[..., Any]) -> Callable[..., str]:
    """What a wrong call is told on standard error, without the frame."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> str:
        result = icae(*arguments, stdin=stdin)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        return " ".join(result.stderr.replace("│", " ").split())

    return run


@pytest.fixture(scope="session")
def made(tiny: Any) -> dict[str, Memory]:
    """Memories of two documents."""
    return {
        "notes": tiny.compress(TEXT, name="notes.txt"),
        "other": tiny.compress(OTHER, name="other.txt"),
    }


@pytest.fixture
def memory_file(tmp_path: Path, made: dict[str, Memory]) -> Path:
    """A memory file of one document, with its text."""
    made["notes"].save(tmp_path / "notes.icae")
    return tmp_path / "notes.icae"


@pytest.fixture
def other_memory_file(tmp_path: Path, made: dict[str, Memory]) -> Path:
    """A second memory of the same model."""
    made["other"].save(tmp_path / "other.icae")
    return tmp_path / "other.icae"


@pytest.fixture
def bare_memory_file(tmp_path: Path, made: dict[str, Memory]) -> Path:
    """A memory file without its text."""
    made["notes"].without_source().save(tmp_path / "bare.icae")
    return tmp_path / "bare.icae"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """A text file."""
    path = tmp_path / "whale.txt"
    path.write_text(OTHER, encoding="utf-8")
    return path


# For tests of other rooms that do not use the fixtures above yet.


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_provenance(adapter_hash: str = "bbbb") -> Provenance:
    return Provenance(
        base_model="tiny",
        base_hash="aaaa",
        adapter="fake",
        adapter_hash=adapter_hash,
        tokenizer_hash="cccc",
        layout="uniform-encoder",
        hidden_size=4,
        slot_dtype="float32",
    )


def fidelity_of(span: int) -> float:
    """Falls with every span, so that the last ones are the weakest."""
    return max(0.0, 1.0 - 0.01 * span)


def make_memory(
    text: str = TEXT,
    *,
    name: str = "notes.txt",
    ratio: float = 4.0,
    span_length: int = 16,
    verify: bool = True,
    provenance: Provenance | None = None,
) -> Memory:
    return word_memory(
        text,
        name=name,
        ratio=ratio,
        span_length=span_length,
        provenance=provenance or make_provenance(),
        held=lambda span, tokens: fidelity_of(span) if verify else None,
    )


@dataclass
class FakeEngine:
    """Stands for `icae.engine.Icae`, with the same methods."""

    name: str = "fake"
    config: ModelConfig = field(default_factory=ModelConfig)
    provenance: Provenance = field(default_factory=make_provenance)
    info: Any = field(default_factory=lambda: SimpleNamespace(ratios=(2.0, 4.0)))
    asked: list[dict[str, Any]] = field(default_factory=list)
    compressed: list[dict[str, Any]] = field(default_factory=list)
    policies: list[Any] = field(default_factory=list)
    starts: list[Any] = field(default_factory=list)
    refined: list[Any] = field(default_factory=list)
    edits: list[dict[str, Any]] = field(default_factory=list)
    reply: str = "A fox, I think."
    finished: bool = True
    failure: BaseException | None = None

    @property
    def decoder(self) -> Any:
        return SimpleNamespace(name="fake bfloat16")

    @property
    def readable(self) -> tuple[Provenance, ...]:
        return (self.provenance,)

    def writer(self, slot_dtype: str) -> FakeEngine:
        return self

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def kv_bytes(self, positions: int) -> int:
        return 1000 * positions

    def compress(
        self,
        text: str,
        *,
        ratio: float = 4.0,
        name: str = "text",
        verify: bool = True,
        policy: Any = None,
        on_progress: Any = lambda done, total: None,
        start: Memory | None = None,
        on_settled: Any = lambda make: None,
    ) -> Memory:
        self.starts.append(start)
        on_settled(lambda: make_memory(text, name=name, ratio=1.0))
        if self.failure is not None:
            raise self.failure
        self.compressed.append({"text": text, "ratio": ratio, "name": name, "verify": verify})
        self.policies.append(policy)
        on_progress(1, 1)
        return make_memory(text, name=name, ratio=ratio, verify=verify)

    def refine(self, memory: Memory, config: Any, *, on_step: Any) -> Iterator[Memory]:
        """Every weak span becomes perfect in 7 steps."""
        self.refined.append(config)
        on_step(7, 9)
        for i, span in enumerate(memory.spans):
            if span.fidelity is None or span.fidelity < config.target:
                spans = list(memory.spans)
                spans[i] = replace(span, fidelity=1.0, refine_steps=7, refine_seconds=0.5)
                spans[i] = replace(spans[i], written_back=True)
                memory = with_spans(memory, spans)
                yield memory

    def append(
        self, memory: Memory, text: str, *, document: int = -1, ratio: float | None = None
    ) -> Memory:
        self.edits.append({"text": text, "document": document, "ratio": ratio})
        end = len(memory.documents[document].spans)
        return memory.replace_spans(document, end, end, make_memory(text, ratio=ratio or 4.0))

    def replace(
        self,
        memory: Memory,
        char_start: int,
        char_end: int,
        text: str,
        *,
        document: int = 0,
        ratio: float | None = None,
    ) -> Memory:
        """All of the document is made anew."""
        where = {"document": document, "ratio": ratio}
        self.edits.append({"text": text, "range": (char_start, char_end), **where})
        source = str(memory.documents[document].source)
        new = make_memory(source[:char_start] + text + source[char_end:])
        end = len(memory.documents[document].spans)
        return memory.replace_spans(document, 0, end, new)

    def ask(self, memory: Memory, question: str, **options: Any) -> Answer:
        return self._answer(memory.positions, question, memory=memory, **options)

    def ask_text(self, text: str, question: str, **options: Any) -> Answer:
        return self._answer(self.count_tokens(text), question, text=text, **options)

    def _answer(
        self,
        positions: int,
        question: str,
        *,
        history: Any = (),
        max_new_tokens: int = 128,
        on_text: Callable[[str], None] | None = None,
        **context: Any,
    ) -> Answer:
        print("a library talks")  # what `--json` has to keep off standard output
        if self.failure is not None:
            raise self.failure
        if "too long" in question:
            raise InputError("The question is too long.", got="900 tokens", expected="<= 512")
        self.asked.append(
            {
                "question": question,
                "history": list(history),
                "max_new_tokens": max_new_tokens,
                **context,
            }
        )
        for piece in re.findall(r"\S+\s*", self.reply) if on_text else ():
            assert on_text is not None
            on_text(piece)
        return Answer(
            text=self.reply,
            prompt_tokens=positions + 7,
            memory_positions=positions,
            answer_tokens=5,
            seconds=1.25,
            first_token_seconds=0.5,
            finished=self.finished,
            runtime=self.decoder.name,
        )

    def reconstruct(
        self, memory: Memory, *, spans: list[int] | None, on_progress: Any
    ) -> list[Reconstruction]:
        wanted = list(range(len(memory.spans))) if spans is None else spans
        out = []
        for done, index in enumerate(wanted, start=1):
            original = memory.span_source(index)
            out.append(
                Reconstruction(
                    span=index,
                    text=f"<span {index}>",
                    original=original,
                    token_ids=(index,),
                    exact_prefix=None if original is None else 0.5,
                )
            )
            on_progress(done, len(wanted))
        return out

    def joined_text(self, memory: Memory, spans: list[Reconstruction]) -> str:
        return joined_text(memory, spans, lambda ids: "".join(f"<span {i}>" for i in ids))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that commands get; how it was opened is in ``fake.opened``."""
    fake = FakeEngine()

    def load(model: ModelOptions) -> FakeEngine:
        names = ("adapter", "base", "device", "dtype")
        fake.opened = {name: getattr(model, name) for name in names}  # type: ignore[attr-defined]
        return fake

    def reader(model: ModelOptions, runtime: str, **options: Any) -> FakeEngine:
        load(model).opened |= {"runtime": runtime, **options}  # type: ignore[attr-defined]
        return fake

    def open_engine(**options: Any) -> FakeEngine:
        fake.opened = options  # type: ignore[attr-defined]
        return fake

    monkeypatch.setattr(ModelOptions, "load", load)
    monkeypatch.setattr(ModelOptions, "reader", reader)
    monkeypatch.setattr(engine, "open_engine", open_engine)
    return fake


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a model is asked for."""

    def refuse(*_: Any, **options: Any) -> FakeEngine:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(ModelOptions, "load", refuse)
    monkeypatch.setattr(ModelOptions, "reader", refuse)
    monkeypatch.setattr(engine, "open_engine", refuse)


@pytest.fixture
def build_memory() -> Callable[..., Memory]:
    return make_memory


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("icae")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
