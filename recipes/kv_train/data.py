"""What a training update is made of: text windows, and contexts with their questions."""

from __future__ import annotations

import hashlib
import json
import lzma
import pickle
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

REFUSAL = "The text does not say."
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
LONG = {"scitldr_train", "pubmedqa_l_train", "qmsum_span_train", "multilexsum", "boolq_train"}


@dataclass
class Question:
    prompt: list[int]  # the user's turn to the end of the generation prompt, without the shared head
    answer: list[int]
    text: str
    swap: bool  # may be asked of another context, where its answer is a refusal


@dataclass
class Asked:
    ids: list[int]
    text: str
    questions: list[Question]


class Tokens:
    """Token ids of a packed folder, all shards joined."""

    def __init__(self, folder: Path) -> None:
        self.shards = [np.memmap(p, dtype=np.uint16, mode="r") for p in sorted(folder.glob("tokens-*.bin"))]
        self.sizes = np.array([len(s) for s in self.shards])

    def window(self, rng: np.random.Generator, length: int) -> list[int]:
        s = int(rng.choice(len(self.shards), p=self.sizes / self.sizes.sum()))
        i = int(rng.integers(0, self.sizes[s] - length))
        return self.shards[s][i : i + length].astype(np.int64).tolist()


def template(tok: Any) -> tuple[str, str]:
    """The chat template around a user's turn."""
    full = tok.apply_chat_template([{"role": "user", "content": "\x00"}], add_generation_prompt=True, tokenize=False)
    head, tail = full.split("\x00")
    return head, tail


def ids_of(tok: Any, text: str) -> list[int]:
    return tok(text, add_special_tokens=False, verbose=False)["input_ids"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    with (lzma.open(path, "rt") if path.suffix == ".xz" else open(path)) as f:
        return [json.loads(line) for line in f]


def build_asked(tok: Any, records: list[dict[str, Any]], cap: int) -> list[Asked]:
    """Contexts of at most ``cap`` tokens with all their questions."""
    head, tail = template(tok)
    shared = ids_of(tok, head)
    by: dict[str, list[dict[str, Any]]] = {}
    for r in records:
        by.setdefault(r["context"], []).append(r)
    out = []
    for text, rs in by.items():
        ids = ids_of(tok, text)
        if not 24 <= len(ids) <= cap:
            continue
        qs = []
        for r in rs:
            q, a = ids_of(tok, head + r["prompt"] + tail), ids_of(tok, r["answer"])
            if q[: len(shared)] != shared or len(q) > len(shared) + 120 or not 1 <= len(a) <= 120:
                continue
            kind = r.get("task") or r["dataset"]
            swap = kind in ("corpus-name", "corpus-year", "corpus-number", "corpus-who", "fairytaleqa_train", "quac_first_turn", "fact", "wh")
            qs.append(Question(q[len(shared) :], [*a, tok.eos_token_id], r["answer"].strip(string.punctuation + " ").lower(), swap))
        if qs:
            out.append(Asked(ids, text.lower(), qs))
    return out


def load_asked(tok: Any, runs: Path, cap: int = 2000) -> dict[str, list[Asked]]:
    """Question sources by name, tokenised once."""
    sources = {
        "short": sorted(p for p in runs.glob("short-*.jsonl") if p.name.count(".") == 1),
        "facts": sorted(runs.glob("facts-*.jsonl")),
        "wh": sorted(runs.glob("wh*.jsonl")),
        "fairytale": [SHARED / "triplets/train" / f"{n}.jsonl.xz" for n in ("fairytaleqa_train", "fairytaleqa_val")],
        "quac": [SHARED / "triplets/train/quac_first_turn.jsonl.xz"],
        "boolq": [SHARED / "triplets/train/boolq_train.jsonl.xz"],
        "long": [SHARED / "triplets/train" / f"{n}.jsonl.xz" for n in ("scitldr_train", "pubmedqa_l_train", "qmsum_span_train", "multilexsum")],
    }
    key = hashlib.sha256(json.dumps([[str(p), p.stat().st_size] for v in sources.values() for p in v]).encode()).hexdigest()[:12]
    cache = runs / f"asked-{key}.pickle"
    if not cache.exists():
        made = {k: build_asked(tok, [r for p in v for r in read_lines(p)], cap) for k, v in sources.items()}
        for v in made.values():
            v.sort(key=lambda a: len(a.ids))
        tmp = cache.with_suffix(".tmp")
        tmp.write_bytes(pickle.dumps(made))
        tmp.replace(cache)
    return pickle.loads(cache.read_bytes())


def draw_questions(rng: np.random.Generator, asked: Asked, pool: list[Asked], most: int, absent: float, refusal: list[int]) -> list[Question]:
    """Some of a context's questions; a few are another context's, to be refused."""
    order = rng.permutation(len(asked.questions))[:most]
    out = []
    for i in order:
        q = asked.questions[int(i)]
        if rng.random() < absent:
            other = pool[int(rng.integers(len(pool)))]
            p = other.questions[int(rng.integers(len(other.questions)))]
            if p.swap and p.text not in asked.text:
                q = Question(p.prompt, refusal, REFUSAL, False)
        out.append(q)
    return out


def draw_batch(
    rng: np.random.Generator, pool: list[Asked], count_of: Any, longest: int, most: int, absent: float, refusal: list[int]
) -> tuple[np.ndarray, list[list[Question]]]:
    """Contexts of nearly one length, the shorter ones filled with the beginning of another text."""
    lengths = [len(a.ids) for a in pool]
    top = int(np.searchsorted(lengths, longest, side="right"))
    i = int(rng.integers(top))
    L = lengths[i]
    B = count_of(L)
    low = max(0, min(i, top - 1) - 8 * B)
    picked = [i, *(int(x) for x in rng.integers(low, i + 1, B - 1))]
    rows, questions = [], []
    for j in picked:
        a = pool[j]
        ids = list(a.ids)
        while len(ids) < L:
            ids += pool[int(rng.integers(len(pool)))].ids[: L - len(ids)]
        rows.append(ids)
        questions.append(draw_questions(rng, a, pool, most, absent, refusal))
    return np.array(rows), questions


def draw_packed(
    rng: np.random.Generator, pools: list[list[Asked]], L: int, B: int, most: int, absent: float, refusal: list[int], sep: list[int]
) -> tuple[np.ndarray, list[list[Question]]]:
    """Documents of L tokens out of several contexts, with questions about several of them."""
    rows, questions = [], []
    for _ in range(B):
        ids: list[int] = []
        qs: list[Question] = []
        while len(ids) < L:
            pool = pools[int(rng.integers(len(pools)))]
            a = pool[int(rng.integers(len(pool)))]
            if len(a.ids) > L:
                continue
            if len(ids) + len(a.ids) <= L:
                qs += [q for q in draw_questions(rng, a, pool, 4, absent, refusal) if q.text != REFUSAL or absent]
            ids += a.ids + sep
        order = rng.permutation(len(qs))[:most]
        rows.append(ids[:L])
        questions.append([qs[int(k)] for k in order])
    return np.array(rows), questions
