"""The prompts of a PWC build: general tasks, and what a service is asked to write.

`PROMPTS_VERSION` is raised with every change of wording: it stands in the datasheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from icae.data.pwc.records import Context, Message

PROMPTS_VERSION = 1

SPECIFIC = "specific"
"""Task of the prompts that a service makes up for one text."""

Ending = Literal["sentence", "anywhere"]


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """What an answer to a task must be like; see `icae.data.pwc.quality`.

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
    ending: Ending = "anywhere"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of prompt that fits any text.

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


_PROSE = AnswerRules(min_words=8, most_copied=0.6, most_foreign=0.2, ending="sentence")

GENERAL_TASKS = (
    Task(
        name="title",
        wordings=(
            "Write a title for the above text.",
            "What would be a good title for this text?",
            "Give the text a short title.",
        ),
        rules=AnswerRules(min_words=2, max_words=16),
        tokens=12,
    ),
    Task(
        name="summary",
        wordings=(
            "Summarize the above text in one or two sentences.",
            "Give a brief summary of the text.",
            "What does the text say, in short?",
        ),
        rules=AnswerRules(
            min_words=8, max_words=150, most_copied=0.6, most_foreign=0.2, ending="sentence"
        ),
        tokens=60,
    ),
    Task(
        name="keywords",
        wordings=(
            "Extract a few keywords for the above text, separated by commas.",
            "List three to six keywords of the text, separated by commas.",
        ),
        rules=AnswerRules(min_words=2, max_words=30, most_foreign=0.2),
        tokens=20,
    ),
    Task(
        name="rephrase",
        wordings=(
            "Rephrase the above text.",
            "Write the text again in other words.",
            "Paraphrase the text.",
        ),
        rules=AnswerRules(min_words=20, most_copied=0.5, most_foreign=0.2, ending="sentence"),
        tokens=200,
    ),
    Task(
        name="continuation",
        wordings=(
            "Write a paragraph that continues the above text.",
            "How might the text go on? Write the next paragraph.",
        ),
        rules=AnswerRules(min_words=20, most_copied=0.3, ending="sentence"),
        tokens=120,
    ),
    Task(
        name="explain",
        wordings=(
            "Explain the above text in simple words.",
            "Explain to a reader without prior knowledge what the text is about.",
        ),
        rules=_PROSE,
        tokens=120,
    ),
    Task(
        name="topic",
        wordings=(
            "What is the main topic of the text? Answer in one sentence.",
            "In one sentence, what is this text about?",
        ),
        rules=AnswerRules(
            min_words=4, max_words=60, most_copied=0.8, most_foreign=0.2, ending="sentence"
        ),
        tokens=30,
    ),
    Task(
        name="facts",
        wordings=(
            "List the most important facts stated in the text.",
            "What are the key points of the text?",
        ),
        rules=AnswerRules(min_words=8, most_copied=0.8, most_foreign=0.2),
        tokens=120,
    ),
    Task(
        name="style",
        wordings=(
            "Describe the style and tone of the text in a sentence.",
            "What kind of text is this, and for whom was it written? Answer in a sentence.",
        ),
        rules=_PROSE,
        tokens=40,
    ),
)

ABOUT = "about"
"""Task of prompts about a name in the text, for a decoder that makes up no good prompts."""

_SENTENCE = AnswerRules(
    min_words=6, max_words=60, most_copied=0.8, most_foreign=0.2, ending="sentence"
)

DECODER_TASKS = (
    Task(
        name="topic",
        wordings=(
            "What is the main topic of the text? Answer in one sentence.",
            "In one sentence, what is this text about?",
        ),
        rules=_SENTENCE,
        tokens=30,
    ),
    Task(
        name="summary",
        wordings=(
            "Summarize the above text in one sentence.",
            "In one sentence, what does the text say?",
        ),
        rules=_SENTENCE,
        tokens=40,
    ),
    Task(
        name="explain",
        wordings=("Explain the above text in one simple sentence.",),
        rules=_SENTENCE,
        tokens=40,
    ),
    Task(
        name="style",
        wordings=("What kind of text is this, and for whom was it written? Answer in a sentence.",),
        rules=_SENTENCE,
        tokens=40,
    ),
    Task(
        name="title",
        wordings=("Write a title for the above text.", "Give the text a short title."),
        rules=AnswerRules(min_words=2, max_words=16),
        tokens=16,
    ),
)
"""General tasks for a small decoder. It is wordy: what is not asked for in one sentence mostly
meets the token limit, and its lists are mostly loops (docs/pwc.md)."""

SPECIFIC_RULES = AnswerRules()
ABOUT_RULES = AnswerRules(min_words=5, most_foreign=0.2, ending="sentence")
SPECIFIC_TOKENS = 50


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is asked about one context.

    Attributes:
        task: Name of its task.
        text: The prompt.
        tokens: Tokens that an answer usually takes.
        rules: What its answers must be like.
    """

    task: str
    text: str
    tokens: int
    rules: AnswerRules = field(default_factory=AnswerRules)


def context_generator(context: Context, *, seed: int, purpose: str) -> np.random.Generator:
    """Random numbers that depend on a context, the seed and a purpose only."""
    return np.random.default_rng([seed % 2**32, int(context.id, 16), *purpose.encode()])


def choose_general(
    context: Context, *, count: int, seed: int, tasks: Sequence[Task] = GENERAL_TASKS
) -> tuple[Prompt, ...]:
    """Choose general prompts for a context.

    Args:
        context: The context.
        count: How many; at most one of each task.
        seed: Seed of tasks and wordings.
        tasks: Tasks to choose from.
    """
    random = context_generator(context, seed=seed, purpose="general")
    chosen = random.permutation(len(tasks))[:count]
    wordings = [tasks[i].wordings[random.integers(len(tasks[i].wordings))] for i in chosen]
    return tuple(
        Prompt(task=tasks[i].name, text=wording, tokens=tasks[i].tokens, rules=tasks[i].rules)
        for i, wording in zip(chosen, wordings, strict=True)
    )


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


def pairs_messages(
    context: Context, *, specific: int, general: Sequence[Prompt]
) -> tuple[Message, ...]:
    """What a service is sent to get all pairs of one context in one reply.

    Args:
        context: The context.
        specific: Prompts that it shall make up.
        general: Prompts that it shall answer.
    """
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
    return (Message(role="system", content=_SYSTEM), Message(role="user", content=content))


def answer_messages(context: Context, prompt: Prompt) -> tuple[Message, ...]:
    """What a model is sent to answer one prompt: the text, a blank line, the prompt.

    The same form as that in which `icae.engine.Icae.ask_text` reads a full context.
    """
    return (Message(role="user", content=f"{context.text}\n\n{prompt.text}"),)
