"""Readings of a memory as rows: a tree of pieces, each behind its parent, scored where asked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .kernels import Block, bias_of, causal_plan
from .model import Base, Live, Memory, Segment

LEARNED = {"back": 0, "ae_back": 1, "lm_back": 2}


@dataclass
class Tree:
    """Rows of one context. A piece sees the front, the memory, its ancestors and itself."""

    n: int
    ids: list[int] = field(default_factory=list)  # token id, or -1 - (index into the learned rows)
    steps: list[int] = field(default_factory=list)  # position, counted from the end of the memory
    pieces: list[tuple[int, int, int, int]] = field(default_factory=list)  # parent, start, end, next step
    rows: list[int] = field(default_factory=list)  # scored rows
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)

    def add(self, parent: int, ids: list[int]) -> int:
        step = self.pieces[parent][3] if parent >= 0 else 0
        start = len(self.ids)
        self.ids += ids
        self.steps += range(step, step + len(ids))
        self.pieces.append((parent, start, len(self.ids), step + len(ids)))
        return len(self.pieces) - 1

    def learned(self, name: str, parent: int = -1) -> int:
        return self.add(parent, [-1 - LEARNED[name] * self.n - i for i in range(self.n)])

    def score(self, piece: int, first: int, targets: list[int], weight: float, kind: int) -> None:
        """Rows of a piece from ``first`` (-1: the last row of its parent) predict ``targets``."""
        parent, start, _, _ = self.pieces[piece]
        for i, t in enumerate(targets):
            row = start + first + i if first + i >= 0 else self.pieces[parent][2] - 1
            self.rows.append(row)
            self.targets.append(t)
            self.weights.append(weight)
            self.kinds.append(kind)

    def trunk(self) -> int:
        """Rows of the pieces that others stand behind; they come first."""
        parents = {p for p, *_ in self.pieces}
        return max([0, *(self.pieces[p][2] for p in parents if p >= 0)])

    def mask(self, T: int) -> np.ndarray:
        m = np.zeros((T, T), dtype=bool)
        for parent, a, b, _ in self.pieces:
            m[a:b, a:b] = np.tri(b - a, dtype=bool)
            while parent >= 0:
                parent, c, d, _ = self.pieces[parent]
                m[a:b, c:d] = True
        return m


def blocks(trees: list[Tree], T: int, past: int, size: int = 96) -> list[Block]:
    """Runs of branches that see the past, the trunk and themselves; one plan for all trees."""
    trunk = max(t.trunk() for t in trees)
    masks = np.stack([t.mask(T) for t in trees])
    if len(trees) == 1 and len(trees[0].pieces) <= 2:
        return causal_plan(past, T)
    starts = [{a for _, a, _, _ in t.pieces} | {len(t.ids)} | {T} for t in trees]
    common = sorted(a for a in set.intersection(*starts) if a >= trunk) or [trunk]
    edges = [0, trunk] if trunk else [0]
    for a, b in zip(common, [*common[1:], T]):
        if b - edges[-1] >= size or b == T:
            edges.append(b)
    edges = sorted({*edges, T})
    for a, b in zip(edges[:], edges[1:]):
        edges += range(a + size, b - size // 2, size)
    edges.sort()
    out = []
    for a, b in zip(edges, edges[1:]):
        # a block may begin inside a piece: its keys begin where the first such piece does
        c = min([a, *(s for t in trees for _, s, e, _ in t.pieces if s < a < e)])
        ranges = ((0, b),) if c < trunk or not trunk else ((0, trunk), (c, b))
        own = np.concatenate([masks[:, a:b, c:d] for c, d in ranges], 2)
        seen = np.concatenate([np.ones((len(trees), b - a, past), dtype=bool), own], 2)
        out.append(Block(a, b, ranges, bias_of(torch.from_numpy(seen))[:, None, None]))
    return out


def rows_of(base: Base, live: Live, ids_BT: Tensor) -> Tensor:
    """Input embeddings [B, T, D] of token ids and learned rows (negative ids)."""
    learned = torch.cat([live.tokens[k] for k in LEARNED])
    x = base.embed(ids_BT.clamp(min=0))
    return torch.where((ids_BT < 0)[..., None], learned[(-1 - ids_BT).clamp(min=0)], x)


def segment(base: Base, live: Live, memory: Memory, trees: list[Tree], front: str, start: int, places: Tensor) -> Segment:
    """Trees of B contexts as one segment; their rows begin at position ``start``."""
    T = max(len(t.ids) for t in trees)
    ids, pos = np.zeros((len(trees), T), dtype=np.int64), np.zeros((len(trees), T), dtype=np.int64)
    for b, t in enumerate(trees):
        ids[b, : len(t.ids)], pos[b, : len(t.ids)] = t.ids, t.steps
    same = all(t.pieces == trees[0].pieces for t in trees[1:])
    used = trees[:1] if same else trees
    prefix = live.prefix() if front == "front" else None
    n = live.tokens[front].shape[0] + (live.prefix_length if prefix else 0)
    plan = blocks(used, T, n + memory.M)
    positions = torch.from_numpy(pos[: len(used)]) + start
    return Segment(live.tokens[front], prefix, rows_of(base, live, torch.from_numpy(ids)), positions, plan, places)


def contiguous(base: Base, live: Live, memory: Memory, trees: list[Tree]) -> Segment:
    n = live.prefix_length + live.tokens["front"].shape[0]
    return segment(base, live, memory, trees, "front", n + memory.M, torch.arange(n, n + memory.M))


def document(base: Base, live: Live, memory: Memory, trees: list[Tree], first: int) -> Segment:
    """Memory on the document's own axis; the text (behind ae_back) restarts at its token ``first``."""
    n = live.tokens["back"].shape[0]
    return segment(base, live, memory, trees, "ae_front", n + first, memory.places_M + 2 * n)


def scored(trees: list[Tree], T: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Flat row indices, targets, weights and kinds of all trees of a segment."""
    rows = [b * T + r for b, t in enumerate(trees) for r in t.rows]
    cat = lambda name: [x for t in trees for x in getattr(t, name)]
    return torch.tensor(rows), torch.tensor(cat("targets")), torch.tensor(cat("weights")), torch.tensor(cat("kinds"))
