"""Contexts cut from a corpus: whole paragraphs, a length in tokens, chosen by a seed.

Every document offers up to ``per_document`` windows in disjoint sections of it. Which of all
windows are taken, where each begins and how long it becomes follows from hashes of the
document and the seed: not from the order of the corpus, nor from how many are taken (a larger
sample holds the smaller one, but for those that fall out as duplicates).
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np

from icae.data.cleaning import clean
from icae.data.contamination import NGRAM_WORDS, NgramIndex, evaluation_texts
from icae.data.corpus import CorpusDocument, read_corpus
from icae.data.dedup import EXACT, KEPT, PERMUTATIONS, Sketcher, find_duplicates
from icae.data.shards import TokenizerLike, tokenize
from icae.data.triplets.records import Context, TripletConfig
from icae.data.triplets.sentences import sentences
from icae.data.words import hash_words, text_key

OPENING_SHARE = 0.5
"""Share of the documents whose first window starts with the document."""

_SAME = 0.6
_POOL = 2
_CHARACTERS_PER_TOKEN = 8
_HEADING_WORDS = 8
_HEADING = re.compile(r"#{1,6} +\S|[A-Z0-9][^.!?:;,|=<>{}]*$")


@dataclass(frozen=True, kw_only=True)
class ContextSample:
    """The contexts of a build.

    Attributes:
        contexts: The contexts, in the order of their hashed numbers.
        documents: Documents read.
        dropped: Reason -> windows looked at and not taken: ``few_tokens``, the reasons of
            `icae.data.cleaning`, ``contaminated``, ``exact``, ``near``.
    """

    contexts: tuple[Context, ...]
    documents: int
    dropped: Mapping[str, int]


def sample_contexts(config: TripletConfig, tokenizer: TokenizerLike) -> ContextSample:
    """Read the corpus, cut and choose contexts.

    No two of them are near duplicates, none has a run of words of an evaluation set.

    Raises:
        InputError: If a corpus or an evaluation set cannot be read.
        MissingDependencyError: If datasketch is not installed.
    """
    against = NgramIndex(evaluation_texts(config.against), n=NGRAM_WORDS)
    counts: Counter[str] = Counter(documents=0)

    def windows() -> Iterator[tuple[int, float, Context]]:
        for document in read_corpus(config.corpus):
            counts["documents"] += 1
            yield from _windows(document, config)

    found: list[Context] = []
    most = _POOL * config.contexts + 64
    for _, share, window in heapq.nsmallest(most, windows(), key=itemgetter(0)):
        target = round(config.min_tokens + share * (config.max_tokens - config.min_tokens))
        context = _cut(window, tokenizer, config, target=target)
        if isinstance(context, str):
            counts[context] += 1
        elif len(against.find(hash_words(context.text))):
            counts["contaminated"] += 1
        else:
            found.append(context)
    words = [hash_words(context.text) for context in found]
    sketch = Sketcher(seed=config.seed)
    verdicts = find_duplicates(
        np.array([text_key(one) for one in words], dtype=np.uint64).reshape(-1, 2),
        np.array([sketch(one) for one in words], dtype=np.uint32).reshape(-1, PERMUTATIONS),
        threshold=_SAME,
    )
    for verdict in verdicts[verdicts != KEPT]:
        counts["exact" if verdict == EXACT else "near"] += 1
    kept = [found[i] for i in np.flatnonzero(verdicts == KEPT)]
    return ContextSample(
        contexts=tuple(kept[: config.contexts]), documents=counts.pop("documents"), dropped=counts
    )


def _windows(
    document: CorpusDocument, config: TripletConfig
) -> Iterator[tuple[int, float, Context]]:
    """Pieces of a document, in disjoint sections of it, in which a context begins.

    Of each its priority (those of lowest priority are taken), where between the shortest and
    the longest context it is to end, 0..1, and the piece as a context that is still to be cut.
    """
    text = document.text
    size = config.max_tokens * _CHARACTERS_PER_TOKEN
    sections = max(1, min(config.per_document, len(text) // (4 * size)))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    for section in range(sections):
        salt = digest + f"{config.seed}:{section}".encode()
        bits = hashlib.blake2b(salt, digest_size=32).digest()
        priority, place, coin, length = (
            int.from_bytes(bits[at : at + 8], "big") for at in range(0, 32, 8)
        )
        first, last = (len(text) * edge // sections for edge in (section, section + 1))
        start = first + int(max(0, last - first - 2 * size) * (place / 2**64))
        if section == 0 and coin / 2**64 < OPENING_SHARE:
            start = 0
        elif start:
            paragraph = text.find("\n\n", start)
            start = len(text) if paragraph < 0 else paragraph + 2
        window = Context(
            id="",
            document=digest.hex(),
            text=text[start : start + 3 * size],
            tokens=0,
            source=document.source,
            title=document.title,
            opening=text[:start].strip() == "",
        )
        yield priority, length / 2**64, window


def _cut(
    window: Context, tokenizer: TokenizerLike, config: TripletConfig, *, target: int
) -> Context | str:
    """The context that begins with a window, or the reason why there is none."""
    cleaned = clean(window.text, shortest=1)
    if cleaned.reason:
        return cleaned.reason
    blocks = [block for block in re.split(r"\n{2,}", cleaned.text) if block.strip()]
    heading = None
    while len(blocks) > 1 and _is_heading(blocks[0]):
        if blocks[0] != window.title:
            heading = blocks[0].lstrip("# ").strip()
        blocks = blocks[1:]
    body, rest = _take(blocks, tokenizer, target=target, most=config.max_tokens)
    tokens = _lengths(tokenizer, [body])[0] if body else 0
    if not config.min_tokens <= tokens <= config.max_tokens:
        return "few_tokens"
    name = text_key(hash_words(body)).astype(">u8").tobytes().hex()
    return replace(window, id=name, text=body, tokens=tokens, heading=heading, following=rest)


def _take(
    blocks: Sequence[str], tokenizer: TokenizerLike, *, target: int, most: int
) -> tuple[str, str | None]:
    """Paragraphs up to a number of tokens, and what follows them in the section."""
    taken: list[str] = []
    size = 0
    for block, length in zip(blocks, _lengths(tokenizer, blocks), strict=True):
        if taken and (_is_heading(block) or size >= target):
            return "\n\n".join(taken), None if _is_heading(block) else block
        if size + length + 2 > most or (size + length > target and length > target):
            part, rest = _first_sentences(block, tokenizer, most=min(target, most - 2) - size)
            if part:
                return "\n\n".join([*taken, part]), rest
            if not taken and length <= most:
                return block, None
            following = None if _is_heading(block) else block
            return "\n\n".join(taken), following if taken else None
        taken.append(block)
        size += length + 2
    return "\n\n".join(taken), None


def _first_sentences(block: str, tokenizer: TokenizerLike, *, most: int) -> tuple[str, str | None]:
    """As many sentences of a paragraph as fit, and the rest of it."""
    parts = sentences(block)
    ends = np.cumsum([length + 1 for length in _lengths(tokenizer, parts)])
    count = int(np.searchsorted(ends, most, side="right"))
    if not count:
        return "", None
    start = 0
    for part in parts[:count]:
        start = block.index(part, start) + len(part)
    return block[:start].strip(), block[start:].strip() or None


def _is_heading(block: str) -> bool:
    """Whether a paragraph is a heading: one short line that is no sentence."""
    short = "\n" not in block and len(block.split()) <= _HEADING_WORDS
    return short and _HEADING.match(block) is not None


def _lengths(tokenizer: TokenizerLike, texts: Sequence[str]) -> list[int]:
    return [len(ids) for ids in tokenize(tokenizer, texts)]
