"""Questions about long documents, for `icae eval qa`: a LongBench-like set of local data.

python -m benchmarks.long_documents ../shared/data --tokens 1000,2000,4000,7000 -o long/

A file for each source and length, `{context, prompt, answer}` as JSON lines:

- peps: proposals cut off after that many tokens; asked for are a number that stands once in them
  (its sentence is given with a gap) and the heading behind another one, both made by rule;
- qmsum: spans of one meeting joined up to that many tokens; the question is about one of them;
- multilexsum: case summaries of half to all of that many tokens, to be summed up.

A token is taken to be four characters. PEPs are part of the text that adapters here are trained
on, MultiLexSum of their triplets: only the questions about PEPs, and QMSum, are new to them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from icae.data.corpus import read_corpus
from icae.data.triplets import Triplet, read_triplets

CHARACTERS = 4
"""Characters that a token stands for, about."""
FEWEST_WORDS, LONGEST_SENTENCE = 6, 300
"""Words and characters of a sentence that is asked about."""
HEADING = re.compile(r"""(?<=\n\n)([A-Z][^\n.:;,?!'"]{2,60}?)(?: ['"=~^-]{3,})?(?=\n\n)""")
"""A paragraph of few words, without what underlines it."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\n")
NUMBER = re.compile(r"(?<![\w.-])\d{2,}(?![\w-]|\.\d)")

Asked = tuple[str, str]
"""Prompt and answer."""


def headings(text: str) -> list[Asked]:
    """Which heading follows another, for headings that stand once."""
    found = HEADING.findall(text)
    counts = Counter(found)
    return [
        (f'Which heading comes directly after the heading "{first}"?', second)
        for first, second in pairwise(found)
        if counts[first] == counts[second] == 1
    ]


def gaps(text: str) -> list[Asked]:
    """Sentences with a number that stands once in the text, and the number."""
    counts = Counter(NUMBER.findall(text))
    made = []
    for sentence in SENTENCE_END.split(text):
        numbers = NUMBER.findall(sentence)
        fits = len(sentence.split()) >= FEWEST_WORDS and len(sentence) <= LONGEST_SENTENCE
        if fits and len(numbers) == 1 and counts[numbers[0]] == 1:
            gap = NUMBER.sub("____", sentence)
            made.append((f'Which number stands in the text in place of ____? "{gap}"', numbers[0]))
    return made


def cut(text: str, characters: int) -> str:
    """A text up to the last end of a paragraph before so many characters."""
    return text[: text.rfind("\n\n", 0, characters)].strip() if len(text) > characters else text


def proposals(data: Path, tokens: int, rng: random.Random) -> Iterator[dict[str, str]]:
    """A number and a heading of each proposal that is long enough."""
    documents = list(read_corpus([data / "pretrain" / "peps.jsonl.xz"]))
    for document in rng.sample(documents, len(documents)):
        context = cut(document.text, tokens * CHARACTERS)
        kinds = (gaps(context), headings(context))
        if len(context) < 0.8 * tokens * CHARACTERS or not all(kinds):
            continue
        for kind in kinds:
            prompt, answer = rng.choice(kind)
            yield {"context": context, "prompt": prompt, "answer": answer}


def meetings(data: Path, tokens: int, rng: random.Random) -> Iterator[dict[str, str]]:
    """A question about one of several spans of a meeting, in the order of the file."""
    by_meeting: dict[str, list[Triplet]] = {}
    for triplet in read_triplets(data / "triplets" / "eval" / "qmsum_span_test.jsonl.xz"):
        by_meeting.setdefault(str(triplet.id), []).append(triplet)
    for own in rng.sample(list(by_meeting.values()), len(by_meeting)):
        asked, spans = rng.choice(own), list(dict.fromkeys(triplet.context for triplet in own))
        kept = [asked.context]
        for span in rng.sample(spans, len(spans)):
            if span not in kept and len("\n".join([*kept, span])) <= tokens * CHARACTERS:
                kept.append(span)
        context = "\n".join(sorted(kept, key=spans.index))
        if len(context) >= 0.6 * tokens * CHARACTERS:
            yield {"context": context, "prompt": asked.prompt, "answer": asked.answers[0]}


def cases(data: Path, tokens: int, rng: random.Random) -> Iterator[dict[str, str]]:
    """Case summaries to sum up."""
    triplets = list(read_triplets(data / "triplets" / "train" / "multilexsum.jsonl.xz"))
    for triplet in rng.sample(triplets, len(triplets)):
        if tokens / 2 < len(triplet.context) / CHARACTERS <= tokens:
            own = {"context": triplet.context, "prompt": triplet.prompt}
            yield {**own, "answer": triplet.answers[0]}


SOURCES = {"peps": proposals, "qmsum": meetings, "multilexsum": cases}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokens", default="1000,2000,4000,7000")
    parser.add_argument("--questions", type=int, default=20, help="of each file, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("long"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, source in SOURCES.items():
        for tokens in map(int, options.tokens.split(",")):
            rows = source(options.data, tokens, random.Random(options.seed))
            found = [row for row, _ in zip(rows, range(options.questions), strict=False)]
            if len(found) < 2:
                print(f"{name}-{tokens}: no texts of that length")
                continue
            path = options.output / f"{name}-{tokens}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
            print(f"{path}: {len(found)} questions")


if __name__ == "__main__":
    main()
