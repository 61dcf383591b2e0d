"""What decides a triplet build: the corpus, the contexts, the prompts, the split."""

from __future__ import annotations

from dataclasses import dataclass

from icae.config.parsing import check
from icae.data.triplets.prompts import prompt_book


@dataclass(frozen=True, kw_only=True)
class TripletConfig:
    """One triplet build: with the texts behind its paths, everything that decides it.

    Attributes:
        corpus: Corpus files, folders and datasets.
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
        lengths = f"{self.min_tokens} to {self.max_tokens} tokens"
        check(
            min(self.contexts, self.per_document) >= 1 <= self.min_tokens <= self.max_tokens,
            "The contexts are out of range.",
            f"{self.contexts} of {lengths}, {self.per_document} per document",
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
