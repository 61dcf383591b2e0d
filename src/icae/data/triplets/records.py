"""What a triplet build handles: contexts, replies, and pairs of a prompt and an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Finish = Literal["stop", "length", "other"]
"""Why a reply ended: by itself, at the token limit, or for another reason."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """A text that prompts are about.

    Attributes:
        id: Hash of its words, 32 hex digits.
        document: Hash of the document that it was cut from; decides train or test.
        text: The text.
        tokens: Its length in tokens of the base model's tokenizer.
        source: Name of the corpus.
        title: Title of the document, if the corpus has one.
        opening: Whether the document starts with it.
        heading: Heading of the section that it opens, if it does; not part of the text.
        following: What comes next in the document: the rest of the paragraph, or the next
            one; None at the end of a section.
    """

    id: str
    document: str
    text: str
    tokens: int
    source: str
    title: str | None = None
    opening: bool = False
    heading: str | None = None
    following: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a writer wrote to one request: a line of the journal.

    Attributes:
        request: Id of the request.
        text: The reply as it came.
        finish: Why it ended.
        prompt_tokens: Tokens read, as the writer counts them; 0 if it does not say.
        completion_tokens: Tokens written, likewise.
        model: The model as it names itself.
    """

    request: str
    text: str
    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    model: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt about a context with its answer.

    Attributes:
        task: Name of the task, or ``reply`` for a reply as a whole.
        prompt: What is asked; empty for a whole reply.
        answer: What was answered.
        flaw: Why it may not be used: a short name, counted in the data sheet; None if it may.
    """

    task: str
    prompt: str
    answer: str
    flaw: str | None = None
