"""Commands run in this process, on a tiny engine and memories that it made."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from typer.testing import CliRunner

from icae.cli.app import app

TEXT = "The quick brown fox jumps over the lazy dog while five boxing wizards look on. " * 2
OTHER = "Pack my box with five dozen liquor jugs."


@pytest.fixture(scope="session")
def tiny(build_engine):
    """A tiny engine of random weights; its tokens are about letters."""
    return build_engine(layout="uniform-encoder")


@pytest.fixture
def loaded(monkeypatch, tiny):
    """The tiny engine is what commands load; how it was asked for is in the list."""
    asked: list[dict[str, Any]] = []

    def load(adapter: str | None = None, made_by: Any = None, **options: Any) -> Any:
        asked.append({"adapter": adapter, **options})
        return tiny

    monkeypatch.setattr("icae.engine.load", load)
    monkeypatch.setattr("icae.opening.open_reader", load)
    return asked


@pytest.fixture
def no_model(monkeypatch):
    """Fail the test if a model is asked for."""

    def load(*_: Any, **options: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("icae.engine.load", load)
    monkeypatch.setattr("icae.opening.open_reader", load)


@pytest.fixture
def icae():
    """Run the command line in this process: ``icae("ask", ..., stdin="...")``."""
    runner = CliRunner()

    def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
        return runner.invoke(app, [str(a) for a in arguments], input=stdin, prog_name="icae")

    return run


@pytest.fixture
def payload(icae):
    """The JSON object of a command that succeeds: ``payload("inspect", path)``."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
        result = icae(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture
def error(icae):
    """The error of a command that exits with 1, as JSON."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
        result = icae(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 1, result.output
        return json.loads(result.stdout)["error"]

    return run


@pytest.fixture
def usage(icae):
    """What a wrong call is told on standard error, without the frame."""

    def run(*arguments: object, stdin: str | bytes | None = None) -> str:
        result = icae(*arguments, stdin=stdin)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        return " ".join(result.stderr.replace("│", " ").split())

    return run


@pytest.fixture(scope="session")
def made(tiny):
    """Memories of two documents."""
    return {
        "notes": tiny.compress(TEXT, name="notes.txt"),
        "other": tiny.compress(OTHER, name="other.txt"),
    }


@pytest.fixture
def memory_file(tmp_path, made):
    """A memory file of one document, with its text."""
    made["notes"].save(tmp_path / "notes.icae")
    return tmp_path / "notes.icae"


@pytest.fixture
def other_memory_file(tmp_path, made):
    """A second memory of the same model."""
    made["other"].save(tmp_path / "other.icae")
    return tmp_path / "other.icae"


@pytest.fixture
def bare_memory_file(tmp_path, made):
    """A memory file without its text."""
    made["notes"].without_source().save(tmp_path / "bare.icae")
    return tmp_path / "bare.icae"


@pytest.fixture
def document(tmp_path):
    """A text file."""
    path = tmp_path / "whale.txt"
    path.write_text(OTHER, encoding="utf-8")
    return path


@pytest.fixture
def fake(monkeypatch, build_engine):
    """An engine with spans of 512 tokens is what commands load; ``fake.opened`` says how."""
    engine = build_engine(span_length=512)

    def load(adapter: str | None = None, **options: Any) -> Any:
        engine.opened = {"adapter": adapter, **options}
        return engine

    monkeypatch.setattr("icae.engine.load", load)
    return engine


class Terminal(io.StringIO):
    """Standard input or output that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal():
    """``terminal(text)``: a stream that says it is a terminal."""
    return Terminal


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    logger = logging.getLogger("icae")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
