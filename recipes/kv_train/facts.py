"""Facts put into text, and questions for them: python -m kv_train.facts --out FILE --tokens 64-512 --contexts 4000.

What `icae pwc build --llm none` asks for stands in the text anyway, and the decoder can often guess it. A figure or a name
made here can only be found. Triplets as `icae pwc build` writes them: context, prompt, answer, task.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

Rng = np.random.Generator
ROLES = "manager editor captain secretary architect treasurer driver coach curator translator inspector engineer librarian surgeon notary".split()
GROUPS = "choir company club department office school project committee ship studio clinic council hotel festival journal factory farm team".split()
COUNTS = "visitors pages members tickets chairs books rooms workers bottles trees letters copies seats lamps boxes sheep bricks".split()
CODES = "access code|telephone number|order number|invoice number|postal code|account number|registration number|file number|room number|batch number|PIN|ticket number".split("|")
SIZES = "length|weight|price|height|budget|rent|area|population|salary|depth".split("|")
UNITS = {"length": "metres", "weight": "kilograms", "price": "dollars", "height": "metres", "budget": "euros", "rent": "dollars", "area": "hectares", "population": "people", "salary": "pounds", "depth": "feet"}
OBJECTS = "umbrella violin passport camera ring letter painting suitcase map clock sword lamp notebook telescope bicycle carpet coin parcel".split()
WHERE = "cellar attic garage cupboard drawer tower kitchen stable chapel garden workshop greenhouse corridor vault barn classroom".split()
COLOURS = "red blue green yellow black white grey brown purple orange pink silver".split()
MONTHS = "January February March April May June July August September October November December".split()
KEYS = "host port user path mode level size limit timeout retries version region owner_id queue bucket branch channel theme locale cache".split()
Fact = tuple[str, list[str], str]
"""The sentence, ways of asking for it, the answer."""


class Words:
    """Names of people and places, and words, out of the corpus."""

    def __init__(self, texts: list[str]) -> None:
        joined = "\n".join(texts)
        people = re.findall(r"(?<=[a-z,] )([A-Z][a-z]{2,9} [A-Z][a-z]{3,10})(?=[ ,.])", joined)
        self.first, self.last = (sorted({p.split()[i] for p in people}) for i in (0, 1))
        self.words = sorted(set(re.findall(r"\b[a-z]{4,9}\b", joined)))

    def one(self, rng: Rng, pool: list[str]) -> str:
        return pool[int(rng.integers(len(pool)))]

    def person(self, rng: Rng) -> str:
        return f"{self.one(rng, self.first)} {self.one(rng, self.last)}"

    def group(self, rng: Rng) -> str:
        name = self.one(rng, self.last)
        return f"the {name} {self.one(rng, GROUPS)}" if rng.random() < 0.6 else f"the {self.one(rng, GROUPS)} in {name}"

    def thing(self, rng: Rng) -> str:
        return f"the {self.one(rng, self.words)} {self.one(rng, OBJECTS)}" if rng.random() < 0.5 else self.group(rng)


def digits(rng: Rng, low: int = 2, high: int = 8) -> str:
    n = int(rng.integers(low, high + 1))
    return str(int(rng.integers(10 ** (n - 1), 10**n)))


def code(rng: Rng) -> str:
    if rng.random() < 0.7:
        return digits(rng, 3, 8)
    letters = list("ABCDEFGHKLMNPRSTVWXZ")
    return "".join(rng.choice(letters, int(rng.integers(1, 4)))) + "-" + digits(rng, 2, 5)


def cap(s: str) -> str:
    return s[0].upper() + s[1:]


def code_fact(w: Words, rng: Rng) -> Fact:
    what, of, v = w.one(rng, CODES), w.thing(rng), code(rng)
    said = [f"The {what} of {of} is {v}.", f"{cap(of)} has the {what} {v}.", f"For {of}, use the {what} {v}.", f"The {what} for {of} was changed to {v}."]
    asked = [f"What is the {what} of {of}?", f"Which {what} does {of} have?", f"Tell me the {what} for {of}.", f"{cap(what)} of {of}?"]
    return w.one(rng, said), asked, v


def size_fact(w: Words, rng: Rng) -> Fact:
    what, of, v = w.one(rng, SIZES), w.thing(rng), digits(rng, 2, 6)
    v = f"{int(v):,}" if rng.random() < 0.3 else v
    said = [f"The {what} of {of} is {v} {UNITS[what]}.", f"With a {what} of {v} {UNITS[what]}, {of} is well known here."]
    return w.one(rng, said), [f"What is the {what} of {of}?", f"How many {UNITS[what]} is the {what} of {of}?"], f"{v} {UNITS[what]}"


def count_fact(w: Words, rng: Rng) -> Fact:
    of, what, v = w.group(rng), w.one(rng, COUNTS), digits(rng, 2, 5)
    said = [f"{cap(of)} has {v} {what}.", f"Last year {of} counted {v} {what}.", f"There are {v} {what} in {of}."]
    return w.one(rng, said), [f"How many {what} does {of} have?", f"What number of {what} is given for {of}?"], v


def role_fact(w: Words, rng: Rng) -> Fact:
    role, of, p = w.one(rng, ROLES), w.group(rng), w.person(rng)
    said = [f"{p} is the {role} of {of}.", f"The {role} of {of} is {p}.", f"{cap(of)} hired {p} as its {role}.", f"{p} became {role} of {of}."]
    if rng.random() < 0.7:
        return w.one(rng, said), [f"Who is the {role} of {of}?", f"What is the name of the {role} of {of}?", f"Which person is {role} of {of}?"], p
    return w.one(rng, said), [f"What does {p} do?", f"What is the job of {p}?"], f"{role} of {of}"


def place_fact(w: Words, rng: Rng) -> Fact:
    p, thing, at = w.person(rng), f"{w.one(rng, COLOURS)} {w.one(rng, OBJECTS)}", f"the {w.one(rng, WHERE)} of {w.group(rng)}"
    said = [f"{p} left the {thing} in {at}.", f"The {thing} of {p} was found in {at}.", f"In {at}, {p} keeps a {thing}."]
    if rng.random() < 0.6:
        return w.one(rng, said), [f"Where is the {thing}?", f"Where is the {thing} of {p}?"], f"in {at}"
    return w.one(rng, said), [f"What is in {at}?", f"Whose {thing} is it?"][:1], f"the {thing}"


def date_fact(w: Words, rng: Rng) -> Fact:
    of, m, y = w.group(rng), w.one(rng, MONTHS), int(rng.integers(1200, 2030))
    v = w.one(rng, [f"{int(rng.integers(1, 29))} {m} {y}", f"{m} {y}", str(y)])
    verb = w.one(rng, ["founded", "closed", "opened", "sold", "moved", "renamed"])
    at = "on" if v[0].isdigit() and " " in v else "in"
    return f"{cap(of)} was {verb} {at} {v}.", [f"When was {of} {verb}?", f"What is the date when {of} was {verb}?"], v


def word_fact(w: Words, rng: Rng) -> Fact:
    of, v = w.thing(rng), " ".join(w.one(rng, w.words) for _ in range(int(rng.integers(1, 3))))
    kind = w.one(rng, ["password", "code word", "nickname", "motto", "label"])
    return f'The {kind} of {of} is "{v}".', [f"What is the {kind} of {of}?", f"Give the {kind} of {of}."], v


def key_fact(w: Words, rng: Rng) -> Fact:
    key = w.one(rng, KEYS) if rng.random() < 0.5 else f"{w.one(rng, w.words)}_{w.one(rng, KEYS)}"
    v = w.one(rng, [digits(rng, 1, 6), w.one(rng, w.words), f"{w.one(rng, w.words)}.{w.one(rng, w.words)}.org", "%08x" % int(rng.integers(2**32))])
    said = w.one(rng, [f"{key}: {v}", f"{key} = {v}", f"--{key} {v}"])
    return f"\n{said}\n", [f"What is the value of {key}?", f"What is {key} set to?"], v


def tool(w: Words, rng: Rng) -> str:
    a, b = w.one(rng, w.words), w.one(rng, w.words)
    return w.one(rng, [f"{a[:4]}{b[:3]}", f"{a}-{b}", f"{a[:3]}2{b[:3]}", a.upper()[:4], cap(a) + cap(b), f"{a}.{b[:3]}", f"{a} {int(rng.integers(1, 20))}.{int(rng.integers(10))}"])


def use_fact(w: Words, rng: Rng) -> Fact:
    of, v, task = w.group(rng), tool(w, rng), f"the {w.one(rng, w.words)} {w.one(rng, OBJECTS + COUNTS)}"
    kind = w.one(rng, "program method system service site machine library tool model format".split())
    verb, does = [("uses", "use"), ("chose", "choose"), ("recommends", "recommend")][int(rng.integers(3))]
    said = [f"{cap(of)} {verb} {v} for {task}.", f"For {task}, {of} {verb} the {kind} {v}.", f"The {kind} that {of} {verb} for {task} is called {v}."]
    said[0] += f" This {kind} is well tested."
    return w.one(rng, said), [f"Which {kind} does {of} {does} for {task}?", f"What is used for {task}?", f"Which {kind} is for {task}?"], v


def span_fact(w: Words, rng: Rng) -> Fact:
    of, what, unit = w.group(rng), f"{w.one(rng, w.words)} {w.one(rng, OBJECTS)}", w.one(rng, "minutes hours days weeks months years".split())
    v = f"{w.one(rng, [digits(rng, 1, 3), 'two', 'three', 'five', 'six', 'seven', 'ten', 'twelve', 'thirty'])} {unit}"
    said = [f"{cap(of)} needed {v} for the {what}.", f"The {what} stayed in {of} for {v}.", f"After {v}, {of} sent the {what} back."]
    asked = [[f"How long did {of} need for the {what}?"], [f"How long did the {what} stay in {of}?"], [f"How long after did {of} send the {what} back?", f"When did {of} send the {what} back?"]]
    i = int(rng.integers(3))
    return said[i], asked[i], v


def deed_fact(w: Words, rng: Rng) -> Fact:
    p, what, of = w.person(rng), f"the {w.one(rng, w.words)} {w.one(rng, OBJECTS)}", w.group(rng)
    verb, base, past = [("suggested", "suggest", "suggested"), ("wrote", "write", "written"), ("sold", "sell", "sold"), ("found", "find", "found"), ("repaired", "repair", "repaired"), ("gave", "give", "given"), ("designed", "design", "designed"), ("lost", "lose", "lost")][int(rng.integers(8))]
    said = [f"{p} {verb} {what} to {of}.", f"{cap(what)} was {past} by {p} for {of}.", f"It was {p} who {verb} {what}, says {of}."]
    u = rng.random()
    if u < 0.6:
        return w.one(rng, said), [f"Who {verb} {what}?", f"Which person {verb} {what}?", f"By whom was {what} {past}?"], p
    return w.one(rng, said), [f"What did {p} {base}?", f"Which thing was {past} by {p}?"], what


KINDS: list[tuple[Callable[[Words, Rng], Fact], float]] = [
    (code_fact, 0.20), (size_fact, 0.08), (count_fact, 0.10), (role_fact, 0.14), (place_fact, 0.08), (date_fact, 0.07), (word_fact, 0.07), (key_fact, 0.07),
    (use_fact, 0.08), (span_fact, 0.05), (deed_fact, 0.06),
]  # fmt: skip


def with_facts(text: str, facts: list[Fact], rng: Rng) -> str:
    """The text with each fact behind a sentence of it, at random places."""
    ends = [0, *(m.end() for m in re.finditer(r"[.!?]\s+", text))]
    places = sorted((int(x) for x in rng.integers(len(ends), size=len(facts))), reverse=True)
    for place, (said, _, _) in zip(places, facts):
        at = ends[place]
        text = text[:at] + said + (" " if not said.endswith("\n") else "") + text[at:]
    return text


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", required=True)
    p.add_argument("--corpus", nargs="+", required=True)
    p.add_argument("--tokens", default="64-512", help="length of the contexts, about (4 characters each)")
    p.add_argument("--contexts", type=int, default=4000)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    rng, texts = np.random.default_rng(a.seed), []
    for path in a.corpus:
        with lzma.open(path, "rt") as f:
            texts += [json.loads(line)["text"] for _, line in zip(range(4000), f)]
    words, (low, high) = Words(texts), map(int, a.tokens.split("-"))
    weights = np.array([x for _, x in KINDS])
    with open(a.out, "w") as f:
        for i in range(a.contexts):
            size = int(4 * np.exp(rng.uniform(np.log(low), np.log(high))))
            text = texts[int(rng.integers(len(texts)))]
            start = int(rng.integers(max(1, len(text) - size)))
            start = max(0, text.find(" ", start)) if start else 0
            count = int(np.clip(rng.integers(1, 2 + size // 160), 1, 12))
            facts = [KINDS[int(k)][0](words, rng) for k in rng.choice(len(KINDS), count, p=weights / weights.sum())]
            room = max(60, size - sum(len(s) for s, _, _ in facts))
            context = with_facts(text[start : start + room].strip(), facts, rng)
            for _, ways, answer in facts:
                f.write(json.dumps({"id": f"fact-{a.seed}-{i}", "dataset": "facts", "task": "fact", "context": context, "prompt": words.one(rng, ways), "answer": answer}) + "\n")


if __name__ == "__main__":
    main()
