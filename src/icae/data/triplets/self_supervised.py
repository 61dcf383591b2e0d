"""Self-supervised pairs: prompts whose answer stands in the corpus. No model is asked.

Whatever is asked here has one answer that a person wrote: the title of a document, the
heading of a section, the first sentence, what follows, the words that were taken out of a
sentence. The answer is exact, so a memory that gives it holds the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from icae.data.triplets.prompts import prompt_book
from icae.data.triplets.records import Context, Pair
from icae.data.triplets.sentences import NAME, PROPER, is_sentence, sentences
from icae.data.words import hash_words

BLANK = "____"

_LONGEST_NEXT = 60
_SENTENCE_WORDS = range(7, 41)
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

Offer = Callable[[Context, np.random.Generator], Offers]


def context_generator(context: Context, *, seed: int, purpose: str) -> np.random.Generator:
    """Random numbers that depend on a context, the seed and a purpose only."""
    return np.random.default_rng([seed % 2**32, int(context.id, 16), *purpose.encode()])


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
    """The title of a document that starts with the context, if half of it stands in the text."""
    words = hash_words(context.title or "")
    there = np.isin(words, hash_words(context.text))
    if context.title and context.opening and len(words) and there.mean() >= 0.5:
        yield "", context.title


def _heading(context: Context, random: np.random.Generator) -> Offers:
    if context.heading and re.search(r"[a-z]{3}", context.heading):
        yield "", context.heading


def _quotation(index: int) -> Offer:
    """The first sentence of a text (0), or the last (-1)."""

    def offers(context: Context, random: np.random.Generator) -> Offers:
        sentence = sentences(context.text)[index]
        if is_sentence(sentence) and _words(sentence) in _SENTENCE_WORDS:
            yield "", sentence

    return offers


def _next_sentences(context: Context, random: np.random.Generator) -> Offers:
    """Whole sentences that follow the context, up to a number of words."""
    taken = ""
    for sentence in sentences(context.following or ""):
        if not is_sentence(sentence) or _words(f"{taken} {sentence}") > _LONGEST_NEXT:
            break
        taken = f"{taken} {sentence}".lstrip()
    if _words(taken) >= _SENTENCE_WORDS.start:
        yield "", taken


def _rest_of_sentence(context: Context, random: np.random.Generator) -> Offers:
    """The second part of a sentence whose beginning is given."""
    for sentence in _quotable(context):
        words = sentence.split()
        cut = int(random.integers(len(words) // 3, 2 * len(words) // 3 + 1))
        begin = " ".join(words[:cut])
        if cut >= 3 and context.text.count(begin) == 1:
            yield begin, " ".join(words[cut:])


def _blank(pattern: str, *, excluded: str = r"(?!)") -> Offer:
    """Fill-in prompts for what a pattern (its group, if it has one) finds once in a sentence."""

    def offers(context: Context, random: np.random.Generator) -> Offers:
        for sentence in _quotable(context):
            matches = re.finditer(pattern, sentence)
            spans = [match.span(match.re.groups) for match in matches]
            spans = [(a, b) for a, b in spans if not re.fullmatch(excluded, sentence[a:b])]
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
        if match and not _NO_SUBJECT.match(match[1]) and match[1] not in match[2]:
            yield match[2], match[1]


def _years(context: Context, random: np.random.Generator) -> Offers:
    found = list(dict.fromkeys(re.findall(_YEAR, context.text)))
    if 2 <= len(found) <= 12:
        yield "", ", ".join(found)


def _quotable(context: Context) -> Iterator[str]:
    for sentence in sentences(context.text):
        if is_sentence(sentence) and _words(sentence) in _SENTENCE_WORDS and '"' not in sentence:
            yield sentence


def _words(text: str) -> int:
    return len(text.split())


_OFFERS: Mapping[str, Offer] = {
    "corpus-title": _title,
    "corpus-heading": _heading,
    "corpus-first-sentence": _quotation(0),
    "corpus-last-sentence": _quotation(-1),
    "corpus-next": _next_sentences,
    "corpus-rest-of-sentence": _rest_of_sentence,
    "corpus-year": _blank(_YEAR),
    "corpus-number": _blank(_NUMBER, excluded=_YEAR),
    "corpus-name": _blank(NAME),
    "corpus-who": _subject,
    "corpus-years": _years,
}
