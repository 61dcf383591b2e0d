"""The tasks of ``prompts.yaml``: what is asked about a text, and what answers must be like."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from icae.config.parsing import from_dict, read_yaml


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """What an answer to a task must be like.

    Attributes:
        min_words: Fewest words.
        max_words: Most words.
        most_copied: Largest share of its words that stand in runs copied from the text, 0..1.
        most_foreign: Largest share of its names and numbers that the text lacks, 0..1.
        ending: ``sentence``: it must end like one.
    """

    min_words: int = 1
    max_words: int = 400
    most_copied: float = 1.0
    most_foreign: float = 1.0
    ending: Literal["sentence", "anywhere"] = "anywhere"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of prompt.

    Attributes:
        name: Its name in data files and counts.
        wordings: Ways to ask for it; one is chosen for each context.
        rules: What its answers must be like.
    """

    name: str
    wordings: tuple[str, ...]
    rules: AnswerRules = field(default_factory=AnswerRules)

    def worded(self, random: np.random.Generator, about: str = "") -> Prompt:
        """The task in one of its wordings, about something that the text offers."""
        wording = self.wordings[random.integers(len(self.wordings))]
        return Prompt(task=self, text=wording.format(about))


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is asked about one context: a task in one of its wordings."""

    task: Task
    text: str


SPECIFIC = Task(name="specific", wordings=())
"""The prompts that a service makes up for one text."""


@dataclass(frozen=True, kw_only=True)
class PromptBook:
    """The file ``prompts.yaml``.

    Attributes:
        version: Raised with every change of a wording.
        service: What a service is sent: ``system``, and the orders ``specific``, ``general``
            and ``shape``.
        general: Tasks that fit any text, for a service.
        decoder: The same for a small decoder.
        about: The task about a name in the text.
        corpus: The self-supervised tasks.
    """

    version: int
    service: Mapping[str, str]
    general: tuple[Task, ...]
    decoder: tuple[Task, ...]
    about: Task
    corpus: tuple[Task, ...]


@functools.cache
def prompt_book() -> PromptBook:
    """The tasks that the package comes with."""
    path = Path(__file__).with_name("prompts.yaml")
    return from_dict(PromptBook, read_yaml(path), where=path.name)
