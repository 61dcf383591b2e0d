"""The service that a judge is behind, and its replies, which are kept in a file."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from icae.config.extras import import_extra
from icae.config.parsing import check
from icae.errors import ConfigError, InputError

Message = dict[str, str]


class Said(NamedTuple):
    """A reply, or why there is none."""

    reply: str | None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class JudgeService:
    """Where a judge is and how it is asked.

    Attributes:
        url: Base URL of the service, as ``http://127.0.0.1:8000/v1``.
        model: Name of the model there.
        api_key: Its key; in no record.
        timeout: Seconds to wait for a reply.
        attempts: Times that a request is made before it counts as failed.
        max_tokens: Most tokens of a reply.
    """

    url: str
    model: str
    api_key: str = field(default="", repr=False)
    timeout: float = 60.0
    attempts: int = 3
    max_tokens: int = 512

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        valid = parts.scheme in ("http", "https") and bool(parts.netloc)
        expected = "for example http://127.0.0.1:8000/v1"
        check(valid, "The address of the judge is no URL.", self.url, expected)
        if not self.model:
            raise ConfigError("The judge has no model.", expected="the name of a model there")
        if self.timeout <= 0 or self.attempts < 1 or self.max_tokens < 1:
            raise ConfigError(
                "The request to the judge is out of range.",
                got=f"{self.timeout} seconds, {self.attempts} attempts, {self.max_tokens} tokens",
                expected="numbers above 0",
            )

    def asker(self) -> Callable[[Sequence[Message]], Said]:
        """What asks it, with the ``openai`` client at temperature 0; failures are told, not raised.

        Raises:
            MissingDependencyError: If the client is not installed.
        """
        openai = import_extra("openai", purpose="A judge", extra="judge")
        client = openai.OpenAI(
            base_url=self.url,
            api_key=self.api_key or "none",
            timeout=self.timeout,
            max_retries=self.attempts - 1,
        )

        def ask(messages: Sequence[Message]) -> Said:
            try:
                answer = client.chat.completions.create(
                    model=self.model,
                    messages=list(messages),
                    temperature=0,
                    max_tokens=self.max_tokens,
                )
                choices = getattr(answer, "choices", None)
                text = choices[0].message.content if choices else None
            except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
                told = f"{type(error).__name__}: {error}"
                return Said(reply=None, problem=" ".join(told.split()))
            return Said(reply=str(text)) if text else Said(None, problem="a reply without text")

        return ask


class Replies:
    """The replies of a judge, asked for once and appended to a file as they come.

    Failures are not kept, so that they are asked for again.

    Args:
        service: The judge.
        path: The file.
        version: Version of the prompt.

    Raises:
        InputError: If the file holds something else.
        MissingDependencyError: If the client is not installed.
    """

    def __init__(self, service: JudgeService, *, path: Path, version: str) -> None:
        self._known = _read(path)
        self._ask, self._path, self._version = service.asker(), path, version
        self._name = f"{service.model} {service.url}"
        self._lock = threading.Lock()

    def to(
        self,
        wanted: Sequence[Sequence[Message]],
        *,
        together: int,
        on_progress: Callable[[int, int], None],
    ) -> list[Said]:
        """What is said to each of some messages, so many requests in flight at once."""
        said: list[Said] = []
        with ThreadPoolExecutor(together, thread_name_prefix="judge") as pool:
            for one in pool.map(self._to, wanted):
                said.append(one)
                on_progress(len(said), len(wanted))
        return said

    def _to(self, messages: Sequence[Message]) -> Said:
        text = json.dumps([self._version, self._name, list(messages)], ensure_ascii=False)
        key = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
        if key in self._known:
            return Said(self._known[key])
        said = self._ask(messages)
        if said.reply is not None:
            made = {"key": key, "prompt": self._version, "judge": self._name, "reply": said.reply}
            with self._lock:
                self._known[key] = said.reply
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(made, ensure_ascii=False) + "\n")
        return said


def _read(path: Path) -> dict[str, str]:
    """Replies by key; a line that was cut off by a kill is dropped."""
    if not path.exists():
        return {}
    known: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("The cache of the judge cannot be read.", got=str(path)) from error
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                record = json.loads(line)
                known[str(record["key"])] = str(record["reply"])
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise InputError(
                    "This is no cache of a judge.",
                    got=f"{path}, line {number}",
                    fix="Name another --cache.",
                ) from error
    return known
