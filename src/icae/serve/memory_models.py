"""Memories as the API speaks of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from icae.errors import RequestError
from icae.memory import Memory
from icae.memory.critical_words import CriticalWord, critical_words, overlapping_word
from icae.memory.shading import Stretch, shaded_spans
from icae.serve.refusals import ErrorDetail
from icae.store.keys import check_name

_ID = re.compile(r"mem_[0-9a-f]{24}")


def no_memory(memory_id: str) -> RequestError:
    """The error for a memory that is not there, or is another owner's."""
    return RequestError(
        "There is no such memory.", status=404, code="memory_not_found", got=memory_id[:80]
    )


def _check_memory_id(memory_id: str) -> str:
    if not _ID.fullmatch(memory_id):
        raise no_memory(memory_id)
    return memory_id


def _check_title(title: str) -> str:
    check_name(title)
    return title


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("a text that is not blank")
    return text


MemoryId = Annotated[
    str,
    AfterValidator(_check_memory_id),
    WithJsonSchema({"type": "string", "pattern": f"^{_ID.pattern}$"}),
]
Title = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_title)]
Text = Annotated[str, Field(min_length=1), AfterValidator(_not_blank)]


class DocumentFields(BaseModel):
    """How a document is to be held, and under which name."""

    model_config = ConfigDict(strict=True)

    name: Title = Field(default="text", description="What you call it; a file has its own name.")
    ratio: float | None = Field(
        default=None,
        ge=1,
        le=1000,
        allow_inf_nan=False,
        description="Context tokens per slot; by default the server's.",
    )
    min_fidelity: float | None = Field(
        default=None,
        ge=0.01,
        le=1,
        allow_inf_nan=False,
        description="Share of its tokens that every span must hold, at the highest of 16x, 8x, "
        "4x and 2x that does, or verbatim. Not together with ratio.",
    )


class MemoryRequest(DocumentFields):
    """A text that is to become a memory."""

    text: Text

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.ratio is not None and self.min_fidelity is not None:
            raise RequestError(
                "ratio and min_fidelity do not go together.",
                param="ratio",
                fix="Leave one out: with min_fidelity each span gets a ratio of its own.",
            )
        return self


class Upload(DocumentFields):
    """A file that is to become a memory."""

    file: str = Field(
        description="Text, Markdown, HTML, PDF, .docx, .epub or .rtf, told by its content.",
        json_schema_extra={"contentMediaType": "application/octet-stream"},
    )


class MoreText(BaseModel):
    """Text for the end of a memory."""

    model_config = ConfigDict(strict=True)

    text: Text = Field(description="It follows the last character at once.")


class TextEdit(BaseModel):
    """Other text, or none, in place of some characters (Unicode code points) of a document."""

    model_config = ConfigDict(strict=True)

    start: int = Field(ge=0, lt=2**53, description="First character that goes.")
    end: int = Field(ge=0, lt=2**53, description="One past the last; start, to insert.")
    text: str = Field(description="What comes in their place; empty to delete.")
    document: int = Field(default=0, ge=0, lt=2**53, description="Index of the document.")


class Progress(BaseModel):
    """How far the work on a memory is."""

    spans_done: int
    spans: int = Field(description="0 before the work begins.")


class MemoryObject(BaseModel):
    """A memory, ready or in work; a field that does not apply is left out."""

    id: MemoryId
    object: Literal["memory"]
    name: str
    created_at: int = Field(default=0, description="Unix time of the last change in s.")
    status: Literal["ready", "in_progress", "failed"]
    tokens: int = Field(default=0, description="Tokens of the text.")
    positions: int = Field(default=0, description="Decoder positions that it takes.")
    ratio: float = Field(default=0.0, description="Tokens per position.")
    fidelity: float | None = Field(
        default=None, description="Mean over the spans, null where it was not measured."
    )
    bytes: int = Field(default=0, description="Bytes on the disk.")
    version: str = Field(default="", description="Another after each change; in quotes the ETag.")
    progress: Progress | None = None
    error: ErrorDetail | None = None


class MemoryPage(BaseModel):
    """Memories, those changed last first; work under way before them."""

    object: Literal["list"]
    data: list[MemoryObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedMemory(BaseModel):
    """A memory that is gone."""

    id: MemoryId
    object: Literal["memory.deleted"] = "memory.deleted"
    deleted: Literal[True] = True


class DocumentText(BaseModel):
    """A document of a memory."""

    name: str
    text: str | None = Field(description="Null where it was not kept.")
    chars: int
    tokens: int


class TextStretch(BaseModel):
    """Characters that one token stands for, or a whole span where tokens are not known."""

    start: int
    end: int
    confidence: float | None = Field(
        description="Probability that the decoder gives the right token."
    )
    lost: bool = Field(description="The decoder would write something else.")
    critical: bool = Field(description="Of a number, a name or code, by its looks.")

    @classmethod
    def of(cls, stretch: Stretch, words: Sequence[CriticalWord]) -> TextStretch:
        """A stretch, and whether one of the critical words is in it."""
        confidence = stretch.confidence
        return cls(
            start=stretch.start,
            end=stretch.end,
            confidence=None if confidence is None else round(confidence, 4),
            lost=stretch.lost,
            critical=overlapping_word(words, stretch.start, stretch.end) is not None,
        )


class SpanText(BaseModel):
    """A span of a memory; characters are Unicode code points of its document."""

    index: int
    document: int = Field(description="Index of its document.")
    kind: Literal["slots", "verbatim"]
    start: int = Field(description="First character in the document.")
    end: int = Field(description="One past the last.")
    tokens: int
    positions: int
    fidelity: float | None
    stretches: list[TextStretch] = Field(description="They tile the characters of the span.")


class MemoryText(BaseModel):
    """The text of a memory with how faithfully each part of it is held."""

    object: Literal["memory.spans"] = "memory.spans"
    documents: list[DocumentText]
    spans: list[SpanText]

    @classmethod
    def of(cls, memory: Memory, token_starts: Sequence[Sequence[int] | None]) -> MemoryText:
        """What a memory holds, span by span.

        `token_starts` holds for each document the character at which each token starts, or None.
        """
        spans = []
        for index, document in enumerate(memory.documents):
            shaded = {}
            if document.source is not None:
                shaded = dict(shaded_spans(memory, index, token_starts[index]))
            words = critical_words(document.source or "")
            spans += [
                SpanText(
                    index=at,
                    document=index,
                    kind="verbatim" if span.kind == "tokens" else "slots",
                    start=span.char_start,
                    end=span.char_end,
                    tokens=span.tokens,
                    positions=span.positions,
                    fidelity=span.fidelity,
                    stretches=[TextStretch.of(one, words) for one in shaded.get(at, [])],
                )
                for at, span in zip(memory.span_range(index), document.spans, strict=True)
            ]
        documents = [
            DocumentText(name=one.name, text=one.source, chars=one.chars, tokens=one.tokens)
            for one in memory.documents
        ]
        return cls(documents=documents, spans=spans)
