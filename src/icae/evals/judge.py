"""An LLM judge: what it is asked, how its reply is read, and the service that it is behind.

A change of the wording needs a new `VERSION`: verdicts of different prompts do not compare.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from icae.errors import ConfigError, InputError, MissingDependencyError

VERSION = "1"
"""Version of `PROMPT` and of how replies are read."""

SYSTEM = (
    "You compare two answers to the same question. Judge how correct and complete they are, "
    "not how long or how fluent. Do not let the order of the answers sway you."
)

PROMPT = """\
{context}Question:
{question}

Reference answer:
{reference}

Answer A:
{first}

Answer B:
{second}

Which answer is better? Give one sentence of reasons. Then end with a line that is exactly one \
of these:
VERDICT: A
VERDICT: B
VERDICT: TIE"""

Verdict = Literal["first", "second", "tie"]

_VERDICT = re.compile(r"^[\s*_#>`]*verdict\s*[:=]?[\s*_`]*(a|b|tie)[\s*_`.]*$", re.I | re.M)
_VERDICTS: dict[str, Verdict] = {"a": "first", "b": "second", "tie": "tie"}


def messages(
    question: str, reference: str, context: str, first: str, second: str
) -> list[dict[str, str]]:
    """The chat messages that ask for a verdict.

    Args:
        question: The question.
        reference: The reference answer; empty if there is none.
        context: The text that the question is about; empty if it is not shown.
        first: The answer shown as A.
        second: The answer shown as B.
    """
    text = PROMPT.format(
        context=f"Text:\n{context}\n\n" if context else "",
        question=question,
        reference=reference or "(none)",
        first=first.strip() or "(empty)",
        second=second.strip() or "(empty)",
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def parse(reply: str) -> Verdict | None:
    """The verdict of a reply.

    Returns:
        The last line that is a verdict, Markdown around it set aside; None if no line is one,
        or two lines say different things.
    """
    found = [match.lower() for match in _VERDICT.findall(reply)]
    return _VERDICTS[found[0]] if len(set(found)) == 1 else None


@dataclass(frozen=True, kw_only=True)
class Said:
    """What came of asking a judge once.

    Attributes:
        reply: What it wrote, or None if there was no reply.
        problem: Why there was none, in words; empty if there was one.
    """

    reply: str | None
    problem: str = ""


class Judge(Protocol):
    """Replies to chat messages."""

    def ask(self, messages: Sequence[dict[str, str]]) -> Said:
        """One reply; a failure is told, not raised."""
        ...


@dataclass(frozen=True, kw_only=True)
class JudgeService:
    """Where a judge is and how it is asked.

    Attributes:
        url: Base URL of the service, as ``http://127.0.0.1:8000/v1``.
        model: Name of the model there.
        timeout: Seconds to wait for a reply.
        attempts: Times that a request is made before it counts as failed.
        max_tokens: Most tokens of a reply.
    """

    url: str
    model: str
    timeout: float = 60.0
    attempts: int = 3
    max_tokens: int = 512

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(
                "The address of the judge is no URL.",
                got=repr(self.url),
                expected="for example http://127.0.0.1:8000/v1",
            )
        if not self.model:
            raise ConfigError("The judge has no model.", expected="the name of a model there")
        if self.timeout <= 0 or self.attempts < 1 or self.max_tokens < 1:
            raise ConfigError(
                "The request to the judge is out of range.",
                got=f"{self.timeout} seconds, {self.attempts} attempts, {self.max_tokens} tokens",
                expected="numbers above 0",
            )


class OpenAiJudge:
    """A judge reached with the ``openai`` client, at temperature 0.

    Raises:
        MissingDependencyError: If the client is not installed.
    """

    def __init__(self, service: JudgeService, api_key: str) -> None:
        self._openai = require_openai()
        self._service = service
        self._client = self._openai.OpenAI(
            base_url=service.url,
            api_key=api_key or "none",
            timeout=service.timeout,
            max_retries=service.attempts - 1,
        )

    def ask(self, messages: Sequence[dict[str, str]]) -> Said:
        """One reply; timeouts, refusals and answers without text are told."""
        try:
            answer = self._client.chat.completions.create(
                model=self._service.model,
                messages=list(messages),
                temperature=0,
                max_tokens=self._service.max_tokens,
            )
            choices = getattr(answer, "choices", None)
            text = choices[0].message.content if choices else None
        except (self._openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
            return Said(reply=None, problem=" ".join(f"{type(error).__name__}: {error}".split()))
        if not text:
            return Said(reply=None, problem="a reply without text")
        return Said(reply=str(text))


class CachedJudge:
    """A judge that is asked the same thing once; replies are appended to a file as they come.

    Failures are not kept, so that they are asked again.

    Raises:
        InputError: If the file is no such cache.
    """

    def __init__(self, judge: Judge, *, name: str, path: Path) -> None:
        self._judge, self._name, self._path = judge, name, path
        self._lock = threading.Lock()
        self._known = _read(path)

    def ask(self, messages: Sequence[dict[str, str]]) -> Said:
        """A kept reply, or one of the judge."""
        key = self._key(messages)
        if key in self._known:
            return Said(reply=self._known[key])
        said = self._judge.ask(messages)
        if said.reply is not None:
            with self._lock:
                self._known[key] = said.reply
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    line = {"key": key, "prompt": VERSION, "judge": self._name, "reply": said.reply}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return said

    def _key(self, messages: Sequence[dict[str, str]]) -> str:
        text = json.dumps([VERSION, self._name, list(messages)], ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def ask_all(
    judge: Judge, wanted: Sequence[Sequence[dict[str, str]]], *, together: int
) -> list[Said]:
    """The replies to many requests, in order, several at a time.

    Args:
        judge: Who is asked.
        wanted: Chat messages of each request.
        together: Requests in flight.
    """
    with ThreadPoolExecutor(together, thread_name_prefix="judge") as pool:
        return list(pool.map(judge.ask, wanted))


def require_openai() -> Any:
    """The package `openai`.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise MissingDependencyError(
            "A judge is reached with the openai client.",
            got="it is not installed",
            expected="the [judge] extra",
            fix="pip install 'icae[judge]'",
        ) from error
    return openai


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
            if number == len(lines):
                break
            raise InputError(
                "This is no cache of a judge.",
                got=f"{path}, line {number}",
                fix="Name another --cache.",
            ) from error
    return known
