"""Questions as people ask them, made by rule from a text's own sentences: python -m kv_train.wh --out FILE SHORT...

`icae pwc build --llm none` leaves a word out of a sentence, `kv_train.facts` invents facts; neither asks "When was the
bridge opened?" of "The bridge was opened in 1932 by ...". This does, from the contexts of triplet files that
`icae pwc build` has made (and kept apart from the evaluation sets): who, what, when, where, how many, why.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

Pair = tuple[str, str]

NAME = r"[A-Z][\w'’.-]*(?: (?:of|the|de|van|von|and|&|[A-Z0-9][\w'’.-]*)){0,6}"
PHRASE = r"(?:(?:the|a|an|its|his|her|their|both|several|many|most|some|other) )?[\w'’-]+(?: (?:of|the|a|an|and|[\w'’-]+)){0,7}"
SUBJECT = rf"(?P<s>(?:The |A |An |This |Most |Many |Some )?(?:[\w'’-]+ ){{0,6}}?[\w'’-]+)"
BE = r"(?P<be>was|were|is|are)"
YEAR = r"(?:1[0-9]{3}|20[0-2][0-9])"
MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
WHEN = rf"(?P<when>(?:the )?(?:early |late |mid-)?{YEAR}s?|{MONTH},? {YEAR}|\d{{1,2}} {MONTH},? {YEAR}|{MONTH} \d{{1,2}},? {YEAR}|the \d\d?(?:st|nd|rd|th) century)"
NUMBER = r"(?P<n>(?:about |over |nearly |around |more than )?(?:\d[\d,.]*(?: million| billion| percent)?%?|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty))"
IRREGULAR = dict(
    x.split("/")
    for x in "won/win wrote/write made/make became/become took/take led/lead gave/give held/hold found/find built/build began/begin left/leave "
    "lost/lose met/meet sent/send sold/sell bought/buy brought/bring taught/teach fought/fight thought/think caught/catch kept/keep felt/feel "
    "had/have went/go came/come saw/see knew/know grew/grow drew/draw flew/fly threw/throw chose/choose spoke/speak broke/break wore/wear "
    "rose/rise drove/drive rode/ride sang/sing swam/swim ran/run got/get stood/stand understood/understand said/say paid/pay told/tell "
    "received/receive included/include moved/move created/create produced/produce introduced/introduce served/serve caused/cause used/use "
    "published/publish released/release established/establish developed/develop discovered/discover completed/complete replaced/replace "
    "reached/reach married/marry studied/study carried/carry won/win joined/join founded/found defeated/defeat opened/open designed/design "
    "invented/invent commanded/command directed/direct recorded/record formed/form purchased/purchase acquired/acquire sank/sink "
    "described/describe supported/support signed/sign entered/enter attended/attend visited/visit worked/work helped/help".split()
)
PAST = "|".join(IRREGULAR)
PART = (
    r"(?P<part>(?:\w+ly )?(?:\w{3,}ed|written|made|taken|led|given|held|found|built|begun|left|lost|sent|sold|bought|brought|taught|fought|"
    r"kept|known|grown|drawn|chosen|spoken|broken|driven|sung|run|set|born|shot|hit|put|cut|cast|seen|shown|thrown|worn|laid|paid|spent))"
)
ROLE = re.compile(r"\b(?:er|or|ist|ian|king|queen|president|minister|bishop|captain|general|governor|saint|poet|coach|chief|man|woman|professor|emperor)\b|(?:er|or|ist|ian)\b", re.I)
NO_SUBJECT = re.compile(r"^(?:\w+ing|\w+ly|Already|Later|Soon|Between|Until|Through|Only|Not|No|He|She|It|They|This|These|There|That|Those|I|We|You|His|Her|Its|Their|In|On|At|By|For|From|With|As|After|Before|During|When|While|If|And|But|Although|Since|Because|However|One|Other|Another|Then|Also|To|Of|Under|Both|Such|Here|What|Who|Which|Where|How|Each|All)\b")
END = r"(?=[,.;:)]|$| (?:and|but|when|where|which|who|that|after|before|because|while|by|for|to|with|from|as|in|on|at)\b)"
STOP = r"(?=[,.;:]|$)"
ARTICLES = ("The ", "A ", "An ", "This ", "Most ", "Many ", "Some ")


def low(s: str) -> str:
    """A subject as it stands inside a sentence: a name keeps its capital."""
    words = s.split()
    name = len(words) == 1 or words[0].isupper() or words[1][0].isupper() or words[1] in ("of", "and", "the", "de", "van", "von")
    return s if name and not s.startswith(ARTICLES) else s[0].lower() + s[1:]


def is_person(s: str) -> bool:
    return bool(re.fullmatch(r"(?:(?:Mr|Mrs|Dr|Sir|Lord|King|Queen|Saint|Pope)\.? )?[A-Z][a-z’']+(?: (?:[A-Z]\.|de|van|von|[A-Z][a-z’'-]+)){0,3}", s))


def questions(sentence: str) -> Iterator[Pair]:
    """Questions of one sentence with their answers, as its words say them."""
    if NO_SUBJECT.match(sentence):
        return
    if m := re.match(rf"{SUBJECT} {BE} {PART}(?P<mid>(?: [\w'’-]+){{0,8}}?) (?:in|on|during) {WHEN}{END}", sentence):
        s, be, part, mid = low(m["s"]), m["be"], m["part"], m["mid"]
        yield f"When {be} {s} {part}{mid}?", m["when"]
        if re.fullmatch(YEAR, m["when"]):
            yield f"In what year {be} {s} {part}{mid}?", m["when"]
    if m := re.match(rf"{SUBJECT} {BE} {PART}(?P<mid>(?: [\w'’-]+){{0,6}}?) by (?P<by>(?:the |a |an )?{NAME}|the [\w'’-]+(?: [\w'’-]+){{0,3}}?){END}", sentence):
        s, be, part, by = low(m["s"]), m["be"], m["part"], m["by"]
        yield (f"Who {be} {s} {part}{m['mid']} by?" if is_person(by) else f"By whom or what {be} {s} {part}{m['mid']}?"), by
        if part.endswith("ed") and be in ("was", "were"):
            yield f"{'Who' if is_person(by) else 'What'} {part} {s}{m['mid']}?", by
    if m := re.match(rf"{SUBJECT} {BE} (?P<part>located|situated|found|based|born|held|buried|built|discovered|filmed|raised|educated|established|stationed) (?P<where>(?:in|at|near|on|between|outside|along|within) (?:the )?{NAME}|in the [\w'’ -]{{3,40}}?){STOP}", sentence):
        yield f"Where {m['be']} {low(m['s'])} {m['part']}?", re.sub(r"^(?:in|at|on) ", "", m["where"])
    if m := re.match(rf"{SUBJECT} {BE} {PART} (?P<prep>into|to|with|from|as|for|of|under|through|for|against|on|in) (?P<what>{PHRASE}?){STOP}", sentence):
        if not re.search(rf"\d|\bthat\b", m["what"]):
            asked = f"Where {m['be']} {low(m['s'])} {m['part']}" if m["prep"] == "in" else f"What {m['be']} {low(m['s'])} {m['part']} {m['prep']}"
            yield asked + "?", m["what"]
    if m := re.match(rf"{SUBJECT} {BE} (?:also |often |commonly |sometimes )?(?P<part>called|known as|named|referred to as|nicknamed) (?P<what>(?:the )?[\w'’\"-]+(?: [\w'’\"-]+){{0,4}}?){STOP}", sentence):
        yield f"What {m['be']} {low(m['s'])} {m['part']}?", m["what"].strip('"')
    if m := re.match(rf"{SUBJECT} {BE} used (?P<prep>to|for|as|in|by) (?P<what>{PHRASE}){STOP}", sentence):
        yield f"What {m['be']} {low(m['s'])} used {m['prep']}{' do' if m['prep'] == 'to' else ''}?", m["what"]
    if m := re.match(rf"{SUBJECT} {BE} (?P<what>(?:a|an|the) {PHRASE}){STOP}", sentence):
        s, be, what = m["s"], m["be"], m["what"]
        yield f"{'Who' if is_person(s) and ROLE.search(what) else 'What'} {be} {low(s)}?", what
        if what.startswith("the ") and s[0].isupper() and not s.startswith(ARTICLES):
            yield f"{'Who' if ROLE.search(what.split(' of ')[0]) and is_person(s) else 'What'} {be} {what}?", s
    if m := re.match(rf"(?P<s>{NAME}) (?P<verb>{PAST}) (?P<what>(?:the |a |an |his |her |its |their )?[\w'’-]+(?: (?:of|the|[\w'’-]+)){{0,4}}?)(?P<rest>(?: (?:in|at|for|from|with|to|on|against|as|into|after|during) [\w'’ -]{{2,50}}?)?){STOP}", sentence):
        s, verb, what, rest = m["s"], m["verb"], m["what"], m["rest"]
        person = "Who" if is_person(s) else "What"
        yield f"{person} {verb} {what}{rest}?", s
        yield f"What did {s} {IRREGULAR[verb]}{rest}?", what
        if d := re.fullmatch(rf" (?:in|on) {WHEN}", rest):
            yield f"When did {s} {IRREGULAR[verb]} {what}?", d["when"]
    if m := re.match(rf"{SUBJECT} (?P<verb>has|have|had|contains|contain|includes|included|consists of|consisted of|won|received|employs|covers|scored|produced|sold) {NUMBER} (?P<noun>(?:[\w'’-]+ ){{0,2}}?[\w'’-]+)(?P<rest>(?: (?:in|at|of|for|from|with|on) [\w'’ -]{{2,40}})?){STOP}", sentence):
        s, verb = low(m["s"]), m["verb"]
        base, _, more = verb.partition(" ")
        if base in ("had", "included", "consisted", "won", "received", "scored", "produced", "sold"):
            helper, base = "did", {"had": "have", "consisted": "consist"}.get(base) or IRREGULAR.get(base, base.removesuffix("d"))
        else:
            helper = "do" if base in ("have", "contain") else "does"
            base = {"has": "have"}.get(base) or (base if helper == "do" else base.removesuffix("s"))
        yield f"How many {m['noun']} {helper} {s} {base}{' ' + more if more else ''}{m['rest']}?", m["n"]
    if m := re.match(rf"(?:There (?P<be>are|were)|(?P<be2>)) ?{NUMBER} (?P<what>[\w'’ -]{{4,60}}?){STOP}", sentence):
        yield f"How many {m['what']}?" if not m["be"] else f"How many {m['what']} {m['be']} there?", m["n"]
    if m := re.match(rf"{SUBJECT} {BE} (?P<what>[\w'’ -]{{3,60}}?) (?:because|due to the fact that|because of|due to) (?P<why>[\w'’ -]{{6,90}}){STOP}", sentence):
        yield f"Why {m['be']} {low(m['s'])} {m['what']}?", m["why"]
    if m := re.search(rf"(?:^|, )(?P<s>(?:the )?{NAME}) (?P<verb>moved|went|came|returned|emigrated|travelled|traveled|belongs|led|leads|refers|referred) to (?P<where>(?:the )?[\w'’-]+(?: (?:of|the|[\w'’-]+)){{0,4}}?){STOP}", sentence):
        verb = m["verb"]
        base = {"went": "go", "came": "come", "led": "lead", "traveled": "travel", "travelled": "travel", "referred": "refer", "returned": "return", "emigrated": "emigrate", "moved": "move"}.get(verb)
        asked = "Where" if verb in ("moved", "went", "came", "returned", "emigrated", "travelled", "traveled") else "What"
        to = "" if asked == "Where" else " to"
        yield (f"{asked} did {m['s']} {base}{to}?" if base else f"What does {m['s']} {verb.removesuffix('s')} to?"), m["where"]


def forms(sentence: str, title: str) -> Iterator[str]:
    """The sentence, and as its subject stands first: without a time or place before it or an apposition behind it, the
    text's title for a pronoun."""
    yield sentence
    if title and (m := re.match(r"(?:He|She|It|They) (?=(?:was|were|is|are|has|had|won|wrote|moved|contains|includes|" + PAST + r")\b)(?!is (?:not|also|believed|said|likely)|was (?:not|said|then))", sentence)):
        yield sentence.replace(m[0], title + " ", 1)
    if m := re.match(r"(?P<first>(?:In|On|During|By|After|From|At|Since) [^,]{3,40}), (?P<rest>.+)", sentence):
        rest = m["rest"][0].upper() + m["rest"][1:]
        yield rest
        yield re.sub(r"[.;].*$", "", rest) + " " + m["first"][0].lower() + m["first"][1:] + "."
    if m := re.match(rf"(?P<s>(?:The )?{NAME}), [^,]{{3,80}}, (?P<rest>(?:was|is|were|are|had|has|{PAST}) .+)", sentence):
        yield f"{m['s']} {m['rest']}"


def good(q: str, a: str) -> bool:
    words = q.split()
    if re.search(r"ing\b", words[2] if len(words) > 2 else "") or a.endswith("ly") or "_" in a or re.match(r"(?:What did|Who was the) .*\? ?$", q) and re.match(r"(?:for|to|of|in|at|on|with|from|that) ", a):
        return False
    return 4 <= len(words) <= 26 and 1 <= len(a.split()) <= 12 and a.lower() not in q.lower() and not re.search(r"[()\[\]|=]", q + a) and not a.lower() in {"it", "him", "them", "her", "this"}


def of_text(text: str, title: str) -> list[Pair]:
    """All questions of a text; one that its sentences answer differently is left out."""
    found: dict[str, set[str]] = {}
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"])|\n+", text):
        if 5 <= len(sentence.split()) <= 60:
            clean = re.sub(r"\s*\([^)]*\)", "", sentence).replace(" ,", ",")
            for q, a in (pair for form in forms(clean, title if title in text else "") for pair in questions(form)):
                a = re.sub(r" (?:and|but|which|who|whose|or|with|of|in|at|for|the|a|by|to|as|that|from)$", "", a.strip(" ,;:."))
                if good(q, a) and a in text:
                    found.setdefault(re.sub(r"\s+", " ", q), set()).add(a)
    return [(q, next(iter(a))) for q, a in found.items() if len(a) == 1]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", required=True)
    p.add_argument("triplets", nargs="+", type=Path, help="files of icae pwc build, whose contexts are asked about")
    a = p.parse_args()
    contexts: dict[str, str] = {}
    for path in a.triplets:
        for line in path.open():
            triplet = json.loads(line)
            contexts.setdefault(triplet["context"], triplet.get("title", ""))
    count = 0
    with open(a.out, "w") as f:
        for text, title in contexts.items():
            pairs = of_text(text, title)
            rng = np.random.default_rng(zlib.crc32(text.encode()))
            for i in rng.permutation(len(pairs))[:12]:
                q, answer = pairs[int(i)]
                f.write(json.dumps({"context": text, "prompt": q, "answer": answer, "dataset": "wh", "task": "wh", "id": f"wh-{count}"}) + "\n")
                count += 1
    print(f"{count:,} questions of {len(contexts):,} contexts")


if __name__ == "__main__":
    main()
