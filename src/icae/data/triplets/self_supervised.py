"""Self-supervised pairs: prompts whose answer stands in the corpus. No model is asked.

Whatever is asked here has one answer that a person wrote: the title of a document, the
heading of a section, the first sentence, what follows, the words that were taken out of a
sentence. The answer is exact, so a memory that gives it holds the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from icae.data.triplets.prompts import NAME, PROPER, context_generator, prompt_book
from icae.data.triplets.records import Context, Pair
from icae.data.triplets.sentences import is_sentence, sentences
from icae.data.words import hash_words

BLANK = "____"

_LONGEST_NEXT = 60
_SENTENCE_WORDS = (7, 40)
_YEAR = r"\b(?:1[0-9]{3}|20[0-2][0-9])\b(?!['’.,]?\d)"
_NUMBER = r"(?<![\w.,])\d{1,3}(?:,\d{3})+\b|(?<![\w.,-])\d+(?:\.\d+)?\b(?![.,-]?\d)"
# A name that starts a sentence and does what the verb behind it says.
_SUBJECT = re.compile(
    rf"((?:The )?{PROPER}) ((?:was|is|were|are|has|had|became|began|won|wrote|led|made|held|took|"
    r"[a-z]{3,}ed) .*[^.])\.$"
)
_NO_SUBJECT = re.compile(
    r"(?:The )?(?:It|He|She|They|We|You|This|That|These|Those|There|Here|What|Who|Which|Some|Many|"
    r"Most|All|Both|Each|One|Another|Others?|Several|Such|Nothing|None|Part|His|Her|Its|Their|Our|My|[A-Z]\w+ly)"
    r"(?: |$)"
)


Offers = Iterator[tuple[str, str]]
"""What a text offers for a task: (what goes into the wording, answer)."""


def corpus_pairs(
    context: Context, *, count: int, seed: int, tasks: Collection[str] = ()
) -> tuple[Pair, ...]:
    """Make pairs about a context from the corpus alone.

    A text that offers more than ``count`` gets as many as that, chosen at random, every task
    (of those named, or of all) once before one comes a second time.
    """
    random = context_generator(context, seed=seed, purpose="corpus")
    asked = [task for task in prompt_book().corpus if not tasks or task.name in tasks]
    offers = [list(_OFFERS[task.name](context, random)) for task in asked]
    chosen: list[Pair] = []
    while len(chosen) < count and any(offers):
        for index in random.permutation(len(asked)):
            if offers[index] and len(chosen) < count:
                about, answer = offers[index].pop(random.integers(len(offers[index])))
                prompt = asked[index].worded(random, about)
                chosen.append(Pair(task=prompt.task.name, prompt=prompt.text, answer=answer))
    return tuple(chosen)


def _title(context: Context, random: np.random.Generator) -> Offers:
    """The title of a document that starts with the context, if the text speaks of it."""
    if context.title and context.opening and _speaks_of(context.text, context.title):
        yield "", context.title


def _heading(context: Context, random: np.random.Generator) -> Offers:
    if context.heading and re.search(r"[a-z]{3}", context.heading):
        yield "", context.heading


def _speaks_of(text: str, title: str) -> bool:
    """Whether at least half of the words of a title stand in the text."""
    words = hash_words(title)
    return bool(len(words)) and float(np.isin(words, hash_words(text)).mean()) >= 0.5


def _first_sentence(context: Context, random: np.random.Generator) -> Offers:
    first = sentences(context.text)[0]
    if is_sentence(first) and _has_length(first):
        yield "", first


def _last_sentence(context: Context, random: np.random.Generator) -> Offers:
    last = sentences(context.text)[-1]
    if is_sentence(last) and _has_length(last):
        yield "", last


def _next_sentences(context: Context, random: np.random.Generator) -> Offers:
    """Whole sentences that follow the context, up to a number of words."""
    taken: list[str] = []
    for sentence in sentences(context.following or ""):
        if not is_sentence(sentence) or _words([*taken, sentence]) > _LONGEST_NEXT:
            break
        taken.append(sentence)
    if _words(taken) >= _SENTENCE_WORDS[0]:
        yield "", " ".join(taken)


def _rest_of_sentence(context: Context, random: np.random.Generator) -> Offers:
    """The second part of a sentence whose beginning is given."""
    for sentence in _quotable(context):
        words = sentence.split()
        cut = int(random.integers(len(words) // 3, 2 * len(words) // 3 + 1))
        begin = " ".join(words[:cut])
        if cut >= 3 and context.text.count(begin) == 1:
            yield begin, " ".join(words[cut:])


def _blank(
    pattern: str, *, excluded: Callable[[str], object] = lambda found: False
) -> Callable[[Context, np.random.Generator], Offers]:
    """Fill-in prompts for what a pattern (its group, if it has one) finds once in a sentence."""

    def offers(context: Context, random: np.random.Generator) -> Offers:
        for sentence in _quotable(context):
            matches = re.finditer(pattern, sentence)
            spans = [match.span(match.re.groups) for match in matches]
            spans = [(a, b) for a, b in spans if not excluded(sentence[a:b])]
            if not spans:
                continue
            start, end = spans[random.integers(len(spans))]
            answer = sentence[start:end]
            if len(re.findall(rf"\b{re.escape(answer)}\b", sentence)) == 1:
                yield sentence[:start] + BLANK + sentence[end:], answer

    return offers


def _subject(context: Context, random: np.random.Generator) -> Offers:
    """Who or what a sentence that starts with a name is about: the sentence as a question."""
    for sentence in _quotable(context):
        match = _SUBJECT.match(sentence)
        if match is None or _NO_SUBJECT.match(match[1]) or match[1] in match[2]:
            continue
        yield match[2], match[1]


def _years(context: Context, random: np.random.Generator) -> Offers:
    found = list(dict.fromkeys(re.findall(_YEAR, context.text)))
    if 2 <= len(found) <= 12:
        yield "", ", ".join(found)


def _quotable(context: Context) -> Iterator[str]:
    for sentence in sentences(context.text):
        if is_sentence(sentence) and _has_length(sentence) and '"' not in sentence:
            yield sentence


def _has_length(sentence: str) -> bool:
    return _SENTENCE_WORDS[0] <= len(sentence.split()) <= _SENTENCE_WORDS[1]


def _words(parts: Sequence[str]) -> int:
    return sum(len(part.split()) for part in parts)


_OFFERS: Mapping[str, Callable[[Context, np.random.Generator], Offers]] = {
    "corpus-title": _title,
    "corpus-heading": _heading,
    "corpus-first-sentence": _first_sentence,
    "corpus-last-sentence": _last_sentence,
    "corpus-next": _next_sentences,
    "corpus-rest-of-sentence": _rest_of_sentence,
    "corpus-year": _blank(_YEAR),
    "corpus-number": _blank(_NUMBER, excluded=re.compile(_YEAR).fullmatch),
    "corpus-name": _blank(NAME),
    "corpus-who": _subject,
    "corpus-years": _years,
}
