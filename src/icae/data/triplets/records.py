"""What a triplet build handles: its settings, contexts, replies, and pairs of prompt and answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from icae.config.parsing import check
from icae.data.triplets.prompts import prompt_book

Finish = Literal["stop", "length", "other"]
"""Why a reply ended: by itself, at the token limit, or for another reason."""


@dataclass(frozen=True, kw_only=True)
class TripletConfig:
    """One triplet build: with the texts behind its paths, everything that decides it.

    Attributes:
        corpus: Corpus files and folders.
        contexts: How many contexts.
        min_tokens: Shortest context, in tokens.
        max_tokens: Longest, in tokens. Target lengths are drawn evenly between the two.
        per_document: Most contexts of one document.
        against: Evaluation sets with which no context may share a run of words.
        specific: Prompts for each context that are made for it.
        general: General prompts for each context.
        from_corpus: Self-supervised prompts for each context.
        corpus_tasks: Which of the self-supervised tasks; none for all.
        test_share: Share of the documents on the test side, 0..1.
        seed: Seed of every choice.
    """

    corpus: tuple[str, ...]
    contexts: int = 1000
    min_tokens: int = 64
    max_tokens: int = 512
    per_document: int = 4
    against: tuple[str, ...] = ()
    specific: int = 10
    general: int = 5
    from_corpus: int = 0
    corpus_tasks: tuple[str, ...] = ()
    test_share: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check(
            min(self.contexts, self.per_document) >= 1 <= self.min_tokens <= self.max_tokens,
            "The contexts are out of range.",
            f"{self.contexts} of {self.min_tokens} to {self.max_tokens} tokens, "
            f"{self.per_document} per document",
            "at least 1 of each, and the shortest no longer than the longest",
        )
        counts = (self.specific, self.general, self.from_corpus)
        check(
            min(counts) >= 0 and any(counts) and 0 <= self.test_share < 1,
            "The prompts or the split are out of range.",
            f"{counts} prompts for each context, test share {self.test_share}",
            "numbers of prompts >= 0 and not all 0, 0 <= test share < 1",
        )
        known = [task.name for task in prompt_book().corpus]
        unknown = ", ".join(task for task in self.corpus_tasks if task not in known)
        message = "This self-supervised task is not known."
        check(not unknown, message, unknown, ", ".join(known))


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
