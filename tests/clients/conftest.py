"""`icae serve` over the tiny recorded model in a process of its own, for real clients."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.recorded import world

MODEL = ["--base", str(world.BASE), "--adapter", str(world.ADAPTER), "--dtype", "float32"]
LONG = "The fox is in the inn. The hen is in the barn. " * 12
AUTO_COMPRESS = 100


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running server: its address with /v1, and the name of its model."""

    url: str
    model: str

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the server says without any client between."""
        data = json.dumps({"model": self.model, **body}).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def make_memory(self, text: str = LONG) -> str:
        return str(self.post("/memories", {"text": text, "name": "fox"})["id"])

    def chat(self, messages: Any, **settings: Any) -> dict[str, Any]:
        return self.post("/chat/completions", {"messages": messages, **settings})


@pytest.fixture(scope="session", autouse=True)
def _nothing_goes_out() -> None:
    """Clients send no figures home and look nothing up."""
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
        "DO_NOT_TRACK": "1",
        "OPENAI_API_KEY": "none",
    }


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "icae", "serve", "--port", "0", *MODEL]
    command += ["--store", str(folder / "memories.db"), "--max-new-tokens", "16"]
    command += ["--auto-compress", str(AUTO_COMPRESS)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        said = None
        while said is None:
            text = (folder / "log").read_text()
            said = re.search(r"Serving (\S+) at (http://\S+/v1)", text)
            assert process.poll() is None, text
        yield Served(url=said[2], model=said[1])
    finally:
        process.terminate()
        assert process.wait(60) in (0, -15)
