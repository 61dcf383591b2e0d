"""The run: python -m kv_train.train --out DIR [--resume] [--from WEIGHTS] (see --help)."""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .data import REFUSAL, Tokens, draw_batch, draw_packed, ids_of, load_asked, template
from .evaluate import Suite, base_folder
from .kernels import DistilledRows, ScoredRows
from .model import Adapter, Base, Live, encode, read, verbatim
from .readings import Tree, contiguous, document, scored

KINDS = ("ae", "recall", "lm", "ft")
INSTRUCTION = (
    "Read the text below. Then answer the question about it in a few words, taken from the text, as short as they can be."
)
"""What the learned slots before the memory begin as."""
ROOT = Path(__file__).resolve().parents[2]


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser()
    a = p.add_argument
    a("--out", required=True)
    a("--resume", action="store_true")
    a("--from", dest="start", default="")
    a("--rank", type=int, default=16)
    a("--tokens", type=int, default=4)
    a("--prefix", type=int, default=0, help="learned keys and values of every layer before the memory")
    a("--seed", type=int, default=0)
    a("--lr", type=float, default=1e-3)
    a("--b-lr", type=float, default=16.0)
    a("--t-lr", type=float, default=5.0)
    a("--p-lr", type=float, default=20.0)
    a("--warm", type=int, default=20)
    a("--ema", type=float, default=0.998)
    a("--batch", type=int, default=1024, help="context tokens an update")
    a("--ft-share", type=float, default=0.4)
    a("--ae-rows", type=int, default=256, help="longest stretch written back of one context")
    a("--probe-every", type=int, default=32, help="context tokens a recall probe")
    a("--lm-rows", type=int, default=48)
    a("--w-ae", type=float, default=1.0)
    a("--w-recall", type=float, default=1.0)
    a("--w-lm", type=float, default=0.5)
    a("--w-kl", type=float, default=0.0, help="KL of continuation rows to the decoder that reads the text")
    a("--w-ft", type=float, default=1.0)
    a("--absent", type=float, default=0.05)
    a("--fact-text", type=float, default=0.0, help="share of the text updates whose text has facts put into it")
    a("--verbatim", type=float, default=0.0, help="share of the question updates whose contexts end word for word behind the memory")
    a("--stage", type=float, default=-1.0, help="tokens seen that the mixture is to be drawn for; -1: as seen")
    a("--save-minutes", type=float, default=10.0)
    a("--eval-minutes", type=float, default=40.0, help="minutes of training between evaluations")
    a("--updates", type=int, default=0, help="stop after so many; 0: never")
    a("--decay", type=int, default=0, help="the last so many of --updates bring the rate down to a tenth, as a straight line")
    a("--no-eval", action="store_true")
    return p.parse_args()


# ---------------------------------------------------------------- what an update is


def draw_shape(rng: np.random.Generator, seen: float) -> tuple[int, int, float]:
    """Context length, span length and ratio of an update, by tokens seen."""
    ratio = 2.0 if seen < 30e3 else float(rng.choice([2.0, 4.0, 8.0, 16.0], p=[0.10, 0.60, 0.20, 0.10]))
    span = int(rng.choice([128, 512, 32], p=[0.70, 0.20, 0.10]))
    u = rng.random()
    if seen < 60e3:
        L = int(rng.choice([64, 128, 192, 256]))
    elif seen < 250e3 or u < 0.75:
        L = int(rng.choice([64, 128, 256, 384, 512], p=[0.15, 0.30, 0.25, 0.10, 0.20]))
    else:
        L = int(rng.choice([768, 1024, 1536, 2000], p=[0.3, 0.4, 0.15, 0.15]))
    if rng.random() < 0.25:
        L -= int(rng.integers(1, 32))
    return L, span, ratio


class Run:
    def __init__(self, a: argparse.Namespace) -> None:
        from transformers import AutoTokenizer

        self.a, self.out = a, Path(a.out)
        self.out.mkdir(parents=True, exist_ok=True)
        folder = base_folder()
        self.base, self.tok = Base(folder), AutoTokenizer.from_pretrained(folder)
        words = ids_of(self.tok, INSTRUCTION)
        prefix = (words * (1 + a.prefix // len(words)))[: a.prefix]
        self.adapter = Adapter(self.base, a.rank, a.tokens, a.seed, prefix)
        self.ema = [p.detach().clone() for p in self.adapter.flat()]
        peaks = (a.lr, a.lr * a.b_lr, a.lr * a.t_lr, a.lr * a.p_lr)
        groups = [{"params": [p], "lr": 0.0, "peak": x} for p, x in zip(self.adapter.flat(), peaks)]
        self.opt = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.rng = np.random.default_rng(a.seed)
        self.step, self.seen, self.asked_count, self.seconds, self.since, self.evaluated = 0, 0, 0, 0.0, 0, 0.0
        self.text = Tokens(ROOT / "runs/packed/small/train")
        self.asked = load_asked(self.tok, ROOT / "runs/kv")
        self.head = ids_of(self.tok, template(self.tok)[0])
        self.refusal = [*ids_of(self.tok, REFUSAL), self.tok.eos_token_id]
        self.sep = ids_of(self.tok, "\n\n")
        self.stop = False

    # -- trees

    def recall(self, t: Tree, root: int, row: list[int], probes: int, n: int, weight: float) -> None:
        for _ in range(probes):
            s = int(self.rng.integers(0, len(row) - n - 16))
            t.score(t.add(root, row[s : s + n + 15]), n - 1, row[s + n : s + n + 16], weight, 1)

    def fact_window(self, n: int) -> list[int]:
        """n tokens of texts with facts, one behind the other: figures and names are rare in other text."""
        pool, ids = self.asked["facts"], []
        while len(ids) < n + 256:
            ids += pool[int(self.rng.integers(len(pool)))].ids + self.sep
        i = int(self.rng.integers(0, len(ids) - n))
        return ids[i : i + n]

    def text_update(self, live: Live) -> tuple[Tensor, dict[str, Any]]:
        a, rng, n = self.a, self.rng, self.a.tokens
        L, span, ratio = draw_shape(rng, a.stage if a.stage >= 0 else self.seen)
        B, C = max(1, round(a.batch / L)), int(np.clip(L // 4, 16, a.lm_rows))
        drawn = self.fact_window if rng.random() < a.fact_text else lambda n: self.text.window(rng, n)
        rows = [drawn(L + C) for _ in range(B)]
        memory = encode(self.base, live, torch.tensor([r[:L] for r in rows]), span, ratio)
        W = min(L, a.ae_rows)
        first = int(rng.integers(0, L - W + 1)) if rng.random() < 0.5 else 0
        probes, prompt = int(np.clip(L // a.probe_every, 2, 24)), int(rng.integers(3, 9))
        ae, other = [], []
        for r in rows:
            t = Tree(n)
            t.score(t.add(t.learned("ae_back"), r[first : first + W - 1]), -1, r[first : first + W], a.w_ae / (B * W), 0)
            ae.append(t)
            t = Tree(n)
            back, lm = t.learned("back"), t.learned("lm_back")
            self.recall(t, back, r[:L], probes, prompt, a.w_recall / (B * probes * 16))
            t.score(t.add(lm, r[L : L + C - 1]), -1, r[L : L + C], a.w_lm / (B * C), 2)
            other.append(t)
        segments = [document(self.base, live, memory, ae, first), contiguous(self.base, live, memory, other)]
        info = {"L": L, "B": B, "span": span, "ratio": ratio}
        teacher = verbatim(self.base, torch.tensor([r[: L + C - 1] for r in rows]), L) if a.w_kl else None
        return self.losses(memory, segments, [ae, other], info, teacher)

    def draw_asked(self, seen: float) -> tuple[np.ndarray, list[list[Any]], dict[str, Any]]:
        a, rng = self.a, self.rng
        _, span, ratio = draw_shape(rng, seen)
        if ratio == 16.0 and rng.random() < 0.7:  # a fact is seldom left of 16 tokens a slot
            ratio = 4.0
        longest = 224 if seen < 60e3 else 512 if seen < 250e3 else 2000
        if seen >= 100e3 and rng.random() < 0.25:
            L = int(rng.choice([256, 512] if seen < 250e3 else [256, 512, 1024, 2000]))
            pools = [self.asked[k] for k in ("short", "facts", "wh", "wh", "fairytale", "quac")]
            ids, qs = draw_packed(rng, pools, L, max(1, a.batch // L), max(6, L // 60), a.absent, self.refusal, self.sep)
            source = "packed"
        else:
            source = str(rng.choice(["short", "facts", "wh", "fairytale", "quac", "boolq", "long"], p=[0.06, 0.25, 0.40, 0.17, 0.06, 0.02, 0.04]))
            if len(self.asked[source][0].ids) > longest - 24:
                source = "short"
            count = lambda L: max(1, min(12, round(a.batch / L)))
            ids, qs = draw_batch(rng, self.asked[source], count, longest, 8, a.absent, self.refusal)
        return ids, qs, {"L": ids.shape[1], "B": len(ids), "span": span, "ratio": ratio, "source": source}

    def asked_update(self, live: Live) -> tuple[Tensor, dict[str, Any]]:
        a, rng = self.a, self.rng
        ids, questions, info = self.draw_asked(a.stage if a.stage >= 0 else self.seen)
        L, kept = info["L"], 0
        if L >= 64 and rng.random() < a.verbatim:
            kept = info["kept"] = int(rng.integers(16, min(L - 16, max(32, 1024 // info["B"])) + 1))
        memory = encode(self.base, live, torch.from_numpy(ids[:, : L - kept]), info["span"], info["ratio"])
        total, trees = max(1, sum(map(len, questions))), []
        probes, prompt = int(np.clip(info["L"] // 64, 1, 8)), int(rng.integers(3, 9))
        for row, qs in zip(ids.tolist(), questions):
            t = Tree(a.tokens)
            back = t.learned("back", t.add(-1, row[L - kept :]) if kept else -1)
            head = t.add(back, self.head)
            self.recall(t, back, row, probes, prompt, 0.5 * a.w_recall / (len(ids) * probes * 16))
            for q in qs:
                piece = t.add(head, q.prompt + q.answer[:-1])
                t.score(piece, len(q.prompt) - 1, q.answer, a.w_ft / (total * len(q.answer)), 3)
            trees.append(t)
        self.asked_count += total
        return self.losses(memory, [contiguous(self.base, live, memory, trees)], [trees], info)

    def losses(self, memory: Any, segments: list[Any], trees: list[list[Tree]], info: dict[str, Any], teacher: Tensor | None = None) -> tuple[Tensor, dict[str, Any]]:
        hidden = read(self.base, memory, segments)
        picked = [scored(t, s.rows_BTD.shape[1]) for t, s in zip(trees, segments)]
        h = torch.cat([x[p[0]] for x, p in zip(hidden, picked)])
        targets, weights, kinds = (torch.cat([p[i] for p in picked]) for i in (1, 2, 3))
        loss, nll, right = ScoredRows.apply(h, self.base.embed_VD, targets, weights)
        for i, k in enumerate(KINDS):
            m = kinds == i
            if m.any():
                info[k] = float((nll[m] * weights[m]).sum().detach() / weights[m].sum())
                info[k + "_acc"] = float(right[m].mean())
        if teacher is not None:
            # continuation rows behind the first: the teacher has read the same tokens
            at = (kinds == 2).nonzero()[:, 0].view(len(trees[-1]), -1)[:, 1:].reshape(-1)
            part, kl = DistilledRows.apply(h[at], teacher, self.base.embed_VD, weights[at] * (self.a.w_kl / self.a.w_lm))
            loss, info["kl"] = loss + part, float(kl.mean())
        info["flop"] = self.flop(info, memory.M, sum(t.shape[0] for t in hidden), len(targets), teacher)
        info["rows"] = sum(s.rows_BTD.shape[0] * s.rows_BTD.shape[1] for s in segments)
        return loss, info

    def flop(self, info: dict[str, Any], M: int, rows: int, heads: int, teacher: Tensor | None) -> float:
        """Products with weights that an update asks for (attention not counted): GFLOP."""
        base, B, L = self.base, info["B"], info["L"]
        layer = sum(w.numel() for w in (base.layers[0].qkv, base.layers[0].out, base.layers[0].gate_up, base.layers[0].down))
        n, last = base.layers_count, 2 * base.G * base.E * base.D
        lora = self.adapter.A.numel() + self.adapter.B.numel()
        context = 2 * B * L * ((n - 1) * layer + base.layers[0].qkv.numel())
        memory = B * M * (4 * ((n - 1) * layer + last) + 6 * lora)
        reading = 4 * rows * (n * layer) + 4 * heads * base.embed_VD.numel()
        taught = 0
        if teacher is not None:
            k = teacher.shape[0]
            taught = 2 * (B * L + k) * n * layer + 6 * k * base.embed_VD.numel()
        return (context + memory + reading + taught) / 1e9

    # -- the loop

    def update(self) -> dict[str, Any]:
        a = self.a
        warm = min(1.0, (self.since + 1) / a.warm)
        if a.decay:
            warm *= min(1.0, max(0.1, (a.updates - self.step) / a.decay))
        for g in self.opt.param_groups:
            g["lr"] = g["peak"] * warm
        asked = max(self.seen, a.stage) > 25e3 and self.rng.random() < a.ft_share
        loss, info = (self.asked_update if asked else self.text_update)(self.adapter.live())
        loss.backward()
        info["norm"] = float(torch.nn.utils.clip_grad_norm_(self.adapter.flat(), 2.0))
        if np.isfinite(info["norm"]):
            self.opt.step()
        self.opt.zero_grad()
        # A start is an average already; without one the first weights are soon forgotten.
        d = a.ema if a.start else min(a.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for e, p in zip(self.ema, self.adapter.flat()):
                e.lerp_(p.detach(), 1 - d)
        self.step, self.since, self.seen = self.step + 1, self.since + 1, self.seen + info["L"] * info["B"]
        return info

    def save(self) -> None:
        name = f"state-{self.step:07d}"
        tmp = self.out / f".{name}.tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        clone = lambda d: {k: v.detach().clone().contiguous() for k, v in d.items()}
        save_file(clone(self.adapter.named()), tmp / "weights.safetensors")
        save_file(clone(self.adapter.named(self.ema)), tmp / "ema.safetensors")
        torch.save(self.opt.state_dict(), tmp / "optimizer.pt")
        state = {k: getattr(self, k) for k in ("step", "seen", "asked_count", "seconds", "since", "evaluated")}
        (tmp / "state.json").write_text(json.dumps({**state, "rng": self.rng.bit_generator.state, "options": vars(self.a)}, indent=1))
        for f in tmp.iterdir():
            with open(f, "rb") as h:
                os.fsync(h.fileno())
        shutil.rmtree(self.out / name, ignore_errors=True)
        tmp.rename(self.out / name)
        link = self.out / ".latest.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        link.replace(self.out / "latest")
        for old in sorted(self.out.glob("state-*"))[:-2]:
            shutil.rmtree(old)

    def load(self) -> None:
        folder = (self.out / "latest").resolve()
        state = json.loads((folder / "state.json").read_text())
        self.adapter.load(load_file(folder / "weights.safetensors"))
        raw = [p.detach().clone() for p in self.adapter.flat()]
        self.adapter.load(load_file(folder / "ema.safetensors"))
        self.ema = [p.detach().clone() for p in self.adapter.flat()]
        with torch.no_grad():
            for p, r in zip(self.adapter.flat(), raw):
                p.copy_(r)
        peaks = [g["peak"] for g in self.opt.param_groups]
        kept = torch.load(folder / "optimizer.pt", weights_only=True)
        fits = all(i in kept["state"] and kept["state"][i]["exp_avg"].shape == p.shape for i, p in enumerate(self.adapter.flat()))
        if fits:  # else the moments begin anew
            self.opt.load_state_dict(kept)
        for g, x in zip(self.opt.param_groups, peaks):
            g["peak"] = x
        self.rng.bit_generator.state = state["rng"]
        for k in ("step", "seen", "asked_count", "seconds", "since"):
            setattr(self, k, state[k])
        self.since *= fits
        self.evaluated = state.get("evaluated", self.seconds)

    def evaluate(self) -> None:
        if self.a.no_eval:
            return
        with torch.no_grad():
            mine = Adapter.__new__(Adapter)
            mine.__dict__.update(self.adapter.__dict__)
            mine.A, mine.B, mine.T, mine.P = self.ema
            self.suite = getattr(self, "suite", None) or Suite(self.base, self.tok)
            result = self.suite.run(mine.live())
        self.log("eval.jsonl", {**result, "eval_seconds": result["seconds"], **self.where()})

    def where(self) -> dict[str, Any]:
        return {"step": self.step, "tokens": self.seen, "asked": self.asked_count, "seconds": round(self.seconds)}

    def log(self, name: str, record: dict[str, Any]) -> None:
        with open(self.out / name, "a") as f:
            f.write(json.dumps(record) + "\n")

    def loop(self) -> None:
        a = self.a
        saved = time.time()
        window: dict[str, list[float]] = collections.defaultdict(list)
        while not self.stop and not (a.updates and self.step >= a.updates):
            t = time.time()
            info = self.update()
            took = time.time() - t
            self.seconds += took
            info["gflops"] = info.pop("flop") / took
            for k, v in info.items():
                if not isinstance(v, str):
                    window[k].append(v)
            window["took"].append(took)
            self.log("updates.jsonl", {"step": self.step, **{k: round(v, 4) if isinstance(v, float) else v for k, v in info.items()}, "took": round(took, 3)})
            if self.step % 20 == 0:
                means = {k: round(float(np.mean(window[k])), 4) for k in window if k not in ("L", "B", "span", "ratio")}
                tokens = sum(x * y for x, y in zip(window["L"], window["B"]))
                record = {**self.where(), **means, "tokens_s": round(tokens / sum(window["took"]), 1)}
                self.log("metrics.jsonl", record)
                print(json.dumps(record), flush=True)
                window.clear()
            if time.time() - saved > 60 * a.save_minutes:
                self.save()
                saved = time.time()
            if self.seconds - self.evaluated > 60 * a.eval_minutes:
                self.evaluate()
                self.evaluated = self.seconds
        self.save()


def main() -> None:
    a = options()
    torch.set_num_threads(1)
    run = Run(a)
    (run.out / "pid").write_text(str(os.getpid()))

    def halt(*_: Any) -> None:
        run.stop = True

    signal.signal(signal.SIGTERM, halt)
    signal.signal(signal.SIGINT, halt)
    if a.resume:
        run.load()
    elif a.start:
        run.adapter.load(load_file(a.start))
        run.ema = [p.detach().clone() for p in run.adapter.flat()]
    run.loop()


if __name__ == "__main__":
    main()
