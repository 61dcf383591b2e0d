"""Held-out measures of a key-value adapter: written back, found, continued, answered."""

from __future__ import annotations

import argparse
import collections
import glob
import json
import re
import string
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from .data import SHARED, Tokens, ids_of, read_lines, template
from .kernels import AddNorm, BlockAttention, Heads, ScoredRows, causal_plan, turn
from .model import BF, Adapter, Base, Live, Memory, encode, frozen_block, prefix_layers, read
from .readings import Tree, contiguous, document, scored

ROOT = Path(__file__).resolve().parents[2]
PEP = [
    ("Which site should host the repository?", ["svn.python.org"]),
    ("Which backend is used?", ["fsfs"]),
    ("Which utility converts it?", ["cvs2svn"]),
    ("Which method gives write access?", ["svn+ssh"]),
    ("How long after the last commit is the repository downloaded?", ["24 hours"]),
    ("Who suggested wush.net?", ["greg stein"]),
    ("Which two modules has the CVS repository?", ["distutils", "python"]),
    ("Which system manages the source code now?", ["cvs"]),
]


def base_folder() -> str:
    return sorted(glob.glob(str(Path.home() / ".cache/icae/smollm2-135m-instruct*/complete")))[0].rsplit("/", 1)[0]


class Cache:
    """Keys and values of one sequence, grown row by row (frozen weights)."""

    def __init__(self, base: Base, layers: list[tuple[Tensor, Tensor]] | None = None, end: int = 0) -> None:
        empty = torch.zeros(1, base.G, 0, base.E, dtype=torch.bfloat16)
        self.base, self.end = base, end
        self.layers = layers or [(empty, empty)] * base.layers_count

    def run(self, x_TD: Tensor) -> Tensor:
        base, T = self.base, x_TD.shape[0]
        angles = base.angles(torch.arange(self.end, self.end + T))
        plan = causal_plan(self.layers[0][0].shape[2], T)
        x, dx, grown = x_TD, torch.zeros_like(x_TD), []
        for w, (pk, pv) in zip(base.layers, self.layers):
            x, y = AddNorm.apply(x, dx, w.norm1, base.eps)
            q, k, _, v = Heads.apply(F.linear(y, w.qkv), 1, base.H, base.G, *angles)
            x, dx = frozen_block(base, w, x, BlockAttention.apply(q, pk, pv, k, v, plan))
            grown.append((torch.cat([pk, k], 2), torch.cat([pv, v], 2)))
        self.layers, self.end = grown, self.end + T
        return AddNorm.apply(x, dx, base.norm, base.eps)[1]


def memory_cache(base: Base, live: Live, memory: Memory) -> Cache:
    """Front tokens and the memory at contiguous positions."""
    cache, n = Cache(base), live.tokens["front"].shape[0]
    cache.run(live.tokens["front"])
    lead = prefix_layers(base, live.prefix(), n)
    cache.layers = [(torch.cat([fk, k], 2), torch.cat([fv, v], 2)) for (fk, fv), (k, v) in zip(cache.layers, lead)]
    cache.end += live.prefix_length
    cos, sin = base.angles(torch.arange(cache.end, cache.end + memory.M))
    layers = [
        (torch.cat([fk, turn(k, cos, sin)], 2), torch.cat([fv, v], 2))
        for (fk, fv), (k, v) in zip(cache.layers, memory.layers)
    ]
    return Cache(base, layers, cache.end + memory.M)


def greedy(base: Base, cache: Cache, rows_TD: Tensor, eos: int, most: int) -> list[int]:
    h, out = cache.run(rows_TD)[-1], []
    while len(out) < most:
        t = int((h @ base.embed_VD.t()).argmax())
        if t == eos:
            break
        out.append(t)
        h = cache.run(base.embed(torch.tensor([t])))[-1]
    return out


def words(s: str) -> list[str]:
    s = "".join(ch for ch in s.lower() if ch not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", s).split()


def f1(p: str, g: str) -> float:
    a, b = words(p), words(g)
    c = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * c / (len(a) + len(b)) if c else 0.0


def score(base: Base, h: Tensor, trees: list[Tree], T: int) -> tuple[Tensor, Tensor]:
    rows, targets, weights, _ = scored(trees, T)
    _, nll, right = ScoredRows.apply(h[rows], base.embed_VD, targets, weights)
    return nll, right


class Suite:
    def __init__(self, base: Base, tok: Any) -> None:
        self.base, self.tok = base, tok
        self.held = Tokens(ROOT / "runs/packed/heldout").shards[0]
        head, tail = template(tok)
        self.prompt = lambda q: ids_of(tok, head + q + tail)
        self.squad = []
        lines = read_lines(SHARED / "triplets/eval/squad_dev_a.jsonl.xz")
        import random

        random.Random(1).shuffle(lines)
        for r in lines[:2000]:
            c = ids_of(tok, r["context"])
            if len(c) <= 192:
                self.squad.append((c, self.prompt(r["prompt"]), r))
            if len(self.squad) == 80:
                break
        self.pep = ids_of(tok, (ROOT / "examples/pep-0347.txt").read_text())

    def windows(self, length: int, count: int, seed: int = 7) -> Tensor:
        rng = np.random.default_rng(seed)
        starts = rng.integers(0, len(self.held) - 700, count)
        return torch.tensor(np.stack([self.held[i : i + length].astype(np.int64) for i in starts]))

    def back(self, live: Live, ids: Tensor, span: int, ratio: float, chunk: int = 8) -> tuple[float, float]:
        """Loss and accuracy of writing windows back."""
        nll, right = [], []
        for part in ids.split(chunk):
            mem = encode(self.base, live, part, span, ratio)
            trees = []
            for row in part.tolist():
                t = Tree(live.tokens["back"].shape[0])
                t.score(t.add(t.learned("ae_back"), row[:-1]), -1, row, 1.0, 0)
                trees.append(t)
            seg = document(self.base, live, mem, trees, 0)
            a, b = score(self.base, read(self.base, mem, [seg])[0], trees, seg.rows_BTD.shape[1])
            nll.append(a), right.append(b)
        return float(torch.cat(nll).mean()), float(torch.cat(right).mean())

    def found(self, live: Live, ids: Tensor, span: int, ratio: float, probes: int = 4) -> tuple[float, float]:
        """Loss and accuracy of recall: 3 to 8 tokens, then the 16 that follow."""
        rng, nll, right = np.random.default_rng(3), [], []
        for part in ids.split(8):
            mem = encode(self.base, live, part, span, ratio)
            trees = []
            for row in part.tolist():
                t = Tree(live.tokens["back"].shape[0])
                root = t.learned("back")
                for _ in range(probes):
                    n = int(rng.integers(3, 9))
                    s = int(rng.integers(0, len(row) - n - 16))
                    t.score(t.add(root, row[s : s + n + 15]), n - 1, row[s + n : s + n + 16], 1.0, 1)
                trees.append(t)
            seg = contiguous(self.base, live, mem, trees)
            a, b = score(self.base, read(self.base, mem, [seg])[0], trees, seg.rows_BTD.shape[1])
            nll.append(a), right.append(b)
        return float(torch.cat(nll).mean()), float(torch.cat(right).mean())

    def continued(self, live: Live, span: int, ratio: float, count: int = 16) -> tuple[float, float, float]:
        """Perplexity of 100 tokens behind 500: memory, full text, their ratio."""
        a, b = [], []
        for row in self.windows(600, count).tolist():
            t = Tree(live.tokens["back"].shape[0])
            t.score(t.add(t.learned("lm_back"), row[500:599]), 0, row[501:600], 1.0, 0)
            mem = encode(self.base, live, torch.tensor([row[:500]]), span, ratio)
            seg = contiguous(self.base, live, mem, [t])
            a.append(score(self.base, read(self.base, mem, [seg])[0], [t], seg.rows_BTD.shape[1])[0])
            h = Cache(self.base).run(self.base.embed(torch.tensor(row[:-1])))[500:]
            b.append(ScoredRows.apply(h, self.base.embed_VD, torch.tensor(row[501:]), torch.ones(99))[1])
        x, y = float(torch.cat(a).mean().exp()), float(torch.cat(b).mean().exp())
        return x, y, x / y

    def answer(self, live: Live, mem: Memory, question: list[int], most: int = 24) -> str:
        rows = torch.cat([live.tokens["back"], self.base.embed(torch.tensor(question))])
        out = greedy(self.base, memory_cache(self.base, live, mem), rows, self.tok.eos_token_id, most)
        return self.tok.decode(out, skip_special_tokens=True).strip()

    def questions(self, live: Live, span: int, ratio: float, count: int = 80) -> tuple[float, float, list[str]]:
        fs, outs = [], []
        for c, q, r in self.squad[:count]:
            t = self.answer(live, encode(self.base, live, torch.tensor([c]), span, ratio), q)
            outs.append(t)
            fs.append(max(f1(t, g) for g in r.get("answers", [r["answer"]])))
        return float(np.mean(fs)), sum(not words(o) for o in outs) / len(outs), outs

    def answer_loss(self, live: Live, asked: list[tuple[list[int], list[int], list[int]]], span: int = 128, ratio: float = 4.0) -> float:
        """Mean loss of the answers (context, prompt, answer with its end), each question weighing the same."""
        out = []
        for c, q, a in asked:
            mem = encode(self.base, live, torch.tensor([c]), span, ratio)
            out.append(float(self.answered(live, mem, q, a)[0].mean()))
        return float(np.mean(out))

    def answered(self, live: Live, mem: Memory, question: list[int], answer: list[int]) -> tuple[Tensor, Tensor]:
        """Losses of an answer's tokens, each behind the true ones before it, and which are right."""
        t = Tree(live.tokens["back"].shape[0])
        t.score(t.add(t.learned("back"), question + answer[:-1]), len(question) - 1, answer, 1.0, 3)
        seg = contiguous(self.base, live, mem, [t])
        return score(self.base, read(self.base, mem, [seg])[0], [t], seg.rows_BTD.shape[1])

    def squad_loss(self, live: Live, count: int = 80) -> float:
        ask = [(c, q, [*ids_of(self.tok, r["answer"]), self.tok.eos_token_id]) for c, q, r in self.squad[:count]]
        return self.answer_loss(live, ask)

    def document(self, live: Live, span: int, ratio: float) -> tuple[int, int, list[str]]:
        """The eight questions about examples/pep-0347.txt: right, empty, answers."""
        mem = encode(self.base, live, torch.tensor([self.pep]), span, ratio)
        outs = [self.answer(live, mem, self.prompt(q), 32) for q, _ in PEP]
        right = sum(all(w in o.lower() for w in want) for o, (_, want) in zip(outs, PEP))
        return right, sum(not words(o) for o in outs), outs

    @torch.no_grad()
    def facts(self, live: Live, path: Path, ratio: float, free: int = 48) -> dict[str, float]:
        """Facts put into held-out text (kv_train.facts): the first token of the answer right, the others, the whole
        answer (each behind the true tokens before it), its loss; ``free`` greedy answers equal to it."""
        by: dict[str, list[dict[str, Any]]] = {}
        for r in read_lines(path):
            by.setdefault(r["context"], []).append(r)
        first, rest, whole, nlls, exact = [], [], [], [], []
        for context, rs in list(by.items())[:32]:
            mem = encode(self.base, live, torch.tensor([ids_of(self.tok, context)]), 128, ratio)
            for r in rs:
                q, a = self.prompt(r["prompt"]), [*ids_of(self.tok, r["answer"]), self.tok.eos_token_id]
                nll, right = self.answered(live, mem, q, a)
                first.append(float(right[0])), rest.append(float(right[1:].mean())), whole.append(float(right.all()))
                nlls.append(float(nll.mean()))
                if len(exact) < free:
                    exact.append(float(words(self.answer(live, mem, q)) == words(r["answer"])))
        names = ("first", "others", "whole", "loss", "free")
        return {k: round(float(np.mean(v)), 3) for k, v in zip(names, (first, rest, whole, nlls, exact))}

    @torch.no_grad()
    def run(self, live: Live, full: bool = False) -> dict[str, Any]:
        t0, out = time.time(), {}
        r = lambda xs: [round(x, 3) for x in xs]
        for ratio in (4.0, 8.0, 16.0):
            k = int(ratio)
            out[f"ae32_{k}x"] = r(self.back(live, self.windows(32, 96 if full else 64), 32, ratio, 32))
            out[f"ae128_{k}x"] = r(self.back(live, self.windows(128, 24), 128, ratio))
            if k == 4 or full:
                out[f"ae512_{k}x"] = r(self.back(live, self.windows(512, 8), 128, ratio, 4))
                out[f"ae512_{k}x_span512"] = r(self.back(live, self.windows(512, 8), 512, ratio, 4))
        out["ae128_4x_span32"] = r(self.back(live, self.windows(128, 24), 32, 4.0))
        out["recall128_4x"] = r(self.found(live, self.windows(128, 24), 128, 4.0))
        out["recall512_4x"] = r(self.found(live, self.windows(512, 8), 128, 4.0, 8))
        if full:
            out["recall128_8x"] = r(self.found(live, self.windows(128, 24), 128, 8.0))
            out["recall2000_4x"] = r(self.found(live, torch.tensor(np.stack([self.held[i : i + 2000].astype(np.int64) for i in (1000, 50000, 100000, 200000)])), 128, 4.0, 16))
            out["ppl500_8x"] = r(self.continued(live, 128, 8.0))
            out["ppl500_4x_span512"] = r(self.continued(live, 512, 4.0))
        out["ppl500_4x"] = r(self.continued(live, 128, 4.0, 16 if full else 8))
        f, empty, outs = self.questions(live, 128, 4.0)
        out["squad_f1_4x"], out["squad_empty"], out["squad_outs"] = round(f, 3), empty, outs[:16]
        if full:
            f, empty, outs = self.questions(live, 128, 8.0)
            out["squad_f1_8x"] = round(f, 3)
        out["squad_loss"] = round(self.squad_loss(live), 3)
        right, empty, outs = self.document(live, 128, 4.0)
        out["pep_right"], out["pep_empty"], out["pep_outs"] = right, empty, outs
        out["seconds"] = round(time.time() - t0)
        return out


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("weights")
    p.add_argument("--full", action="store_true")
    p.add_argument("--facts", type=Path, help="facts to ask for alone, of a file that kv_train.facts made")
    a = p.parse_args()
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    folder = base_folder()
    base = Base(folder)
    named = load_file(a.weights)
    keys = named.get("tokens.prefix_keys")
    prefix = 0 if keys is None else keys.shape[0] // (base.layers_count * base.G)
    adapter = Adapter(base, named["layers.0.q.lora_A"].shape[0], named["tokens.front"].shape[0], prefix_ids=[0] * prefix)
    adapter.load(named)
    suite = Suite(base, AutoTokenizer.from_pretrained(folder))
    with torch.no_grad():
        live = adapter.live()
        result = {f"{r}x": suite.facts(live, a.facts, float(r)) for r in (4, 2)} if a.facts else suite.run(live, a.full)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
