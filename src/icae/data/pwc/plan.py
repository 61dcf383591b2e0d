"""What a PWC build will do: its contexts, and the requests that they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from icae.data.contamination import ContaminationConfig, NgramIndex, evaluation_texts
from icae.data.corpus import read_corpus
from icae.data.pwc.contexts import ContextConfig, ContextSample, sample_contexts
from icae.data.pwc.corpus_prompts import CORPUS_TASKS, about_prompts
from icae.data.pwc.prompts import DECODER_TASKS, choose_general
from icae.data.pwc.records import Context
from icae.data.pwc.requests import AnswerRequest, PairsRequest, Sent
from icae.data.shards import TokenizerLike
from icae.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PwcConfig:
    """One PWC build: with the corpus, everything that decides its plan.

    Attributes:
        corpus: Corpus files, folders and datasets.
        contexts: Number and lengths of the contexts.
        specific: Prompts for each context that are made for it.
        general: General prompts for each context.
        from_corpus: Self-supervised prompts for each context.
        corpus_tasks: Which of the self-supervised tasks; none for all.
        test_share: Share of the documents on the test side, 0..1.
        seed: Seed of every choice.
        contamination: Evaluation sets with which no context may share a run of words.
    """

    corpus: tuple[str, ...]
    contexts: ContextConfig = field(default_factory=ContextConfig)
    specific: int = 10
    general: int = 5
    from_corpus: int = 0
    corpus_tasks: tuple[str, ...] = ()
    test_share: float = 0.05
    seed: int = 0
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)

    def __post_init__(self) -> None:
        counts = (self.specific, self.general, self.from_corpus)
        if min(counts) < 0 or not 0 <= self.test_share < 1:
            raise ConfigError(
                "The build is out of range.",
                got=f"{counts} prompts, test share {self.test_share}",
                expected="numbers of prompts >= 0, 0 <= test share < 1",
            )
        unknown = [task for task in self.corpus_tasks if task not in CORPUS_TASKS]
        if unknown:
            raise ConfigError(
                "This self-supervised task is not known.",
                got=", ".join(map(repr, unknown)),
                expected=", ".join(CORPUS_TASKS),
            )
        if not any(counts):
            raise ConfigError(
                "There is nothing to build.",
                got="0 specific, 0 general and 0 self-supervised prompts",
                expected="at least one prompt for each context",
            )


def plan_contexts(config: PwcConfig, tokenizer: TokenizerLike) -> ContextSample:
    """Read the corpus and choose the contexts.

    Args:
        config: The build.
        tokenizer: Measures lengths.

    Raises:
        InputError: If a corpus or an evaluation set cannot be read.
        MissingDependencyError: If datasketch is not installed.
    """
    against = NgramIndex(
        evaluation_texts(config.contamination.against), n=config.contamination.ngram_words
    )
    return sample_contexts(
        read_corpus(config.corpus), tokenizer, config.contexts, seed=config.seed, against=against
    )


def pairs_requests(
    contexts: Iterable[Context], config: PwcConfig, *, sent: Sent
) -> tuple[PairsRequest, ...]:
    """One request for each context, answered with JSON: for a service.

    Args:
        contexts: The contexts.
        config: Numbers of prompts.
        sent: Model and options.
    """
    if not config.specific and not config.general:
        return ()
    return tuple(
        PairsRequest.make(
            context,
            specific=config.specific,
            general=choose_general(context, count=config.general, seed=config.seed),
            sent=sent,
        )
        for context in contexts
    )


def answer_requests(
    contexts: Sequence[Context], config: PwcConfig, *, sent: Sent
) -> tuple[AnswerRequest, ...]:
    """One request for each prompt, answered with plain text: for the frozen decoder.

    A small decoder does not make up good prompts. Its specific ones name somebody or
    something that occurs in the text.

    Args:
        contexts: The contexts.
        config: Numbers of prompts.
        sent: Model and options.
    """
    return tuple(
        AnswerRequest.make(context, prompt, sent=sent)
        for context in contexts
        for prompt in (
            *about_prompts(context, count=config.specific, seed=config.seed),
            *choose_general(context, count=config.general, seed=config.seed, tasks=DECODER_TASKS),
        )
    )
