"""What is asked about a context: the tasks of ``prompts.yaml``, and the messages of a chat."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from icae.config.parsing import from_dict, read_yaml
from icae.data.triplets.quality import AnswerRules
from icae.data.triplets.records import Context

Message = Mapping[str, str]
"""One message of a chat: ``role`` and ``content``."""

PROPER = r"[A-Z][\w-]*[a-z]\b(?:(?: (?:of|the|de|van|von|du|da|la|le))* [A-Z][\w-]*[a-z]\b){0,4}"
"""A name of up to five words."""
# Behind a word in lower case, so that no sentence starts with it and no part of it is left out.
NAME = rf"\b[a-z][\w’'-]*[,;]? ({PROPER})(?! [A-Z])"
"""A name inside a sentence, as group 1."""

_SYSTEM = (
    "You write training data for a model that answers prompts about a text. "
    "You reply with JSON only, without any comment."
)
_SPECIFIC_ORDER = """\
Make up {count} prompts about this very text, each with its answer. Together they should test \
how well a reader has understood and remembers the text: its topic, genre, structure, style and \
attitude, and above all its details, such as names, numbers, dates, places, causes and \
sequences. Write the first {instructions} as instructions and the other {questions} as questions. \
Each must be answerable from the text alone, and no two may ask for the same thing. Answer \
completely and correctly, briefly where a few words suffice."""
_GENERAL_ORDER = """\
Also answer each of these numbered prompts about the text:
{prompts}"""
_SHAPE = """\
Reply with one JSON object of this shape, and nothing else:
{shape}"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of prompt.

    Attributes:
        name: Its name in data files and counts.
        wordings: Ways to ask for it; one is chosen for each context.
        rules: What its answers must be like.
        tokens: Tokens that an answer usually takes, for estimates.
    """

    name: str
    wordings: tuple[str, ...]
    rules: AnswerRules = field(default_factory=AnswerRules)
    tokens: int = 60

    def worded(self, random: np.random.Generator, about: str = "") -> Prompt:
        """The task in one of its wordings, about something that the text offers."""
        wording = self.wordings[random.integers(len(self.wordings))]
        return Prompt(task=self, text=wording.format(about))


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is asked about one context: a task in one of its wordings."""

    task: Task
    text: str


SPECIFIC = Task(name="specific", wordings=(), tokens=50)
"""The prompts that a service makes up for one text."""


@dataclass(frozen=True, kw_only=True)
class PromptBook:
    """The file ``prompts.yaml``.

    Attributes:
        version: Raised with every change of a wording.
        general: Tasks that fit any text, for a service.
        decoder: The same for a small decoder.
        about: The task about a name in the text.
        corpus: The self-supervised tasks.
    """

    version: int
    general: tuple[Task, ...]
    decoder: tuple[Task, ...]
    about: Task
    corpus: tuple[Task, ...]


@functools.cache
def prompt_book() -> PromptBook:
    """The tasks that the package comes with."""
    path = Path(__file__).with_name("prompts.yaml")
    return from_dict(PromptBook, read_yaml(path), where=path.name)


def context_generator(context: Context, *, seed: int, purpose: str) -> np.random.Generator:
    """Random numbers that depend on a context, the seed and a purpose only."""
    return np.random.default_rng([seed % 2**32, int(context.id, 16), *purpose.encode()])


def choose_general(
    context: Context, tasks: Sequence[Task], *, count: int, seed: int
) -> tuple[Prompt, ...]:
    """Choose general prompts for a context, at most one of each task."""
    random = context_generator(context, seed=seed, purpose="general")
    return tuple(tasks[i].worded(random) for i in random.permutation(len(tasks))[:count])


def about_prompts(context: Context, *, count: int, seed: int) -> tuple[Prompt, ...]:
    """Prompts for a model to answer, each about another name that occurs in the text."""
    random = context_generator(context, seed=seed, purpose="about")
    names = list(dict.fromkeys(re.findall(NAME, context.text)))
    about = prompt_book().about
    return tuple(about.worded(random, names[i]) for i in random.permutation(len(names))[:count])


def pairs_messages(
    context: Context, *, specific: int, general: Sequence[Prompt]
) -> tuple[Message, ...]:
    """What a service is sent to make up ``specific`` prompts and answer them and others."""
    orders, shapes = [], []
    if specific:
        instructions = (specific + 1) // 2
        orders.append(
            _SPECIFIC_ORDER.format(
                count=specific, instructions=instructions, questions=specific - instructions
            )
        )
        shapes.append('"specific": [{"prompt": "...", "answer": "..."}, ...]')
    if general:
        listed = "\n".join(f"{i}. {one.text}" for i, one in enumerate(general, start=1))
        orders.append(_GENERAL_ORDER.format(prompts=listed))
        shapes.append('"general": [{"number": 1, "answer": "..."}, ...]')
    order = _SHAPE.format(shape="{" + ", ".join(shapes) + "}")
    content = "\n\n".join([f"<text>\n{context.text}\n</text>", *orders, order])
    return ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": content})
