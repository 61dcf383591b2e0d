"""Fused pieces with hand-written gradients: attention in blocks, norms, rotary heads, SwiGLU, scored rows.

Each body is a plain function compiled once for any shape; the autograd Functions around them
save only what their gradient needs. Shapes as in model.py; t rows of a block, P keys it may see.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

torch._dynamo.config.recompile_limit = 64
torch._dynamo.config.accumulated_recompile_limit = 1024
BF = getattr(torch, os.environ.get("KV_DTYPE", "bfloat16"))
"""What the run computes in: float32 on a processor without products of bfloat16."""
EAGER = bool(os.environ.get("KV_EAGER"))


def fused(f):  # type: ignore[no-untyped-def]
    return f if EAGER else torch.compile(f, dynamic=True)


# ---------------------------------------------------------------- attention in blocks


@dataclass(frozen=True)
class Block:
    """Rows a..b of a segment see all past keys and their own segment's ``ranges``, less the bias."""

    a: int
    b: int
    ranges: tuple[tuple[int, int], ...]
    bias: Tensor  # [1 or B, 1, 1, t, P] float32: 0 or -inf like


def causal_plan(past: int, T: int, size: int = 128) -> list[Block]:
    blocks = []
    for a in range(0, T, size):
        b = min(T, a + size)
        seen = torch.ones(b - a, past + b, dtype=torch.bool).tril(past + a)
        blocks.append(Block(a, b, ((0, b),), bias_of(seen)[None, None, None]))
    return blocks


def bias_of(seen: Tensor) -> Tensor:
    return torch.zeros(seen.shape).masked_fill(~seen, -1e30)


@fused
def softmax_rows(s: Tensor, bias: Tensor) -> Tensor:
    return torch.softmax(s.float() + bias, -1).to(BF)


@fused
def softmax_grad(p: Tensor, dp: Tensor) -> Tensor:
    x = p.float()
    d = x * dp.float()
    return (d - x * d.sum(-1, keepdim=True)).to(BF)


class BlockAttention(torch.autograd.Function):
    """q [B,H,T,E] (already scaled), past keys and values [B,G,P,E], own [B,G,T,E] -> [B*T, H*E]."""

    @staticmethod
    def forward(ctx, q, kp, vp, ko, vo, plan):  # type: ignore[no-untyped-def]
        B, H, T, E = q.shape
        G = kp.shape[1]
        out = torch.empty(B, T, H, E, dtype=q.dtype)
        keep = any(ctx.needs_input_grad[:5])
        saved = []
        for blk in plan:
            t = blk.b - blk.a
            kk = torch.cat([kp, *(ko[:, :, c:d] for c, d in blk.ranges)], 2)
            vv = torch.cat([vp, *(vo[:, :, c:d] for c, d in blk.ranges)], 2)
            qq = q[:, :, blk.a : blk.b].reshape(B, G, -1, E)
            p = softmax_rows((qq @ kk.transpose(2, 3)).view(B, G, H // G, t, -1), blk.bias).view(B, G, H // G * t, -1)
            out[:, blk.a : blk.b] = (p @ vv).view(B, H, t, E).transpose(1, 2)
            if keep:
                saved += [qq, kk, vv, p]
        ctx.save_for_backward(*saved)
        ctx.plan, ctx.sizes = plan, (B, H, G, T, E, kp.shape[2])
        return out.view(B * T, H * E)

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        B, H, G, T, E, P = ctx.sizes
        past = ctx.needs_input_grad[1]
        g = g.view(B, T, H, E)
        dq = torch.empty(B, H, T, E, dtype=g.dtype)
        dkp, dvp = (torch.zeros(B, G, P, E) for _ in range(2)) if past else (None, None)
        dko, dvo = (torch.zeros(B, G, T, E) for _ in range(2))
        for i, blk in enumerate(ctx.plan):
            qq, kk, vv, p = ctx.saved_tensors[4 * i : 4 * i + 4]
            go = g[:, blk.a : blk.b].transpose(1, 2).reshape(B, G, -1, E)
            dv = p.transpose(2, 3) @ go
            ds = softmax_grad(p, go @ vv.transpose(2, 3))
            dq[:, :, blk.a : blk.b] = (ds @ kk).view(B, H, -1, E)
            dk = ds.transpose(2, 3) @ qq
            if past:
                dkp += dk[:, :, :P]
                dvp += dv[:, :, :P]
            at = P
            for c, d in blk.ranges:
                dko[:, :, c:d] += dk[:, :, at : at + d - c]
                dvo[:, :, c:d] += dv[:, :, at : at + d - c]
                at += d - c
        b = lambda x: x if x is None else x.to(BF)
        return dq, b(dkp), b(dvp), b(dko), b(dvo), None


# ---------------------------------------------------------------- norms, heads, SwiGLU


@fused
def _add_norm(x: Tensor, d: Tensor, w: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    s = x + d
    y = s.float()
    r = torch.rsqrt((y * y).mean(-1, keepdim=True) + eps)
    return s, w * (y * r).to(BF), r


@fused
def _add_norm_grad(gs: Tensor, gy: Tensor, s: Tensor, r: Tensor, w: Tensor) -> Tensor:
    h = s.float() * r
    k = gy.float() * w.float()
    return (gs.float() + r * (k - h * (k * h).mean(-1, keepdim=True))).to(BF)


class AddNorm(torch.autograd.Function):
    """(x, d) -> (x + d, rms norm of it)."""

    @staticmethod
    def forward(ctx, x, d, w, eps):  # type: ignore[no-untyped-def]
        s, y, r = _add_norm(x, d, w, eps)
        ctx.save_for_backward(s, r, w)
        return s, y

    @staticmethod
    def backward(ctx, gs, gy):  # type: ignore[no-untyped-def]
        s, r, w = ctx.saved_tensors
        if gs is None:
            gs = torch.zeros_like(s)
        g = _add_norm_grad(gs, gy, s, r, w) if gy is not None else gs
        return g, g, None, None


@fused
def _swiglu(x: Tensor) -> Tensor:
    g, u = x.chunk(2, -1)
    g = g.float()
    return ((g * torch.sigmoid(g)).to(BF) * u).to(BF)


@fused
def _swiglu_grad(x: Tensor, gz: Tensor) -> Tensor:
    g, u = x.chunk(2, -1)
    g, u, z = g.float(), u.float(), gz.float()
    s = torch.sigmoid(g)
    return torch.cat([z * u * s * (1 + g * (1 - s)), z * g * s], -1).to(BF)


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return _swiglu(x)

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        return _swiglu_grad(ctx.saved_tensors[0], g)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    c, s = cos.chunk(2, -1)[0], sin.chunk(2, -1)[1]
    return torch.cat([a * c - b * s, b * c + a * s], -1)


@fused
def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary turn in float32. x [.., T, E]; cos and signed sin broadcast."""
    return _turned(x.float(), cos, sin).to(BF)


class Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(cos, sin)
        return turn(x, cos, sin)

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        cos, sin = ctx.saved_tensors
        return turn(g, cos, -sin), None, None


@fused
def _heads(x: Tensor, cos: Tensor, sin: Tensor, H: int, G: int, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, k, v = x[:, :, :H].transpose(1, 2), x[:, :, H : H + G].transpose(1, 2), x[:, :, H + G :].transpose(1, 2)
    return (
        (_turned(q.float(), cos, sin) * scale).to(BF).contiguous(),
        _turned(k.float(), cos, sin).to(BF).contiguous(),
        k.contiguous(),
        v.contiguous(),
    )


@fused
def _heads_grad(gq: Tensor, gk: Tensor, g0: Tensor, gv: Tensor, cos: Tensor, sin: Tensor, scale: float) -> Tensor:
    q = (_turned(gq.float(), cos, -sin) * scale).to(BF)
    k = (_turned(gk.float(), cos, -sin) + g0.float()).to(BF)
    return torch.cat([q, k, gv], 1).transpose(1, 2).contiguous()


@fused
def _heads_grad_placed(gq: Tensor, gk: Tensor, gv: Tensor, cos: Tensor, sin: Tensor, scale: float) -> Tensor:
    q = (_turned(gq.float(), cos, -sin) * scale).to(BF)
    k = _turned(gk.float(), cos, -sin).to(BF)
    return torch.cat([q, k, gv], 1).transpose(1, 2).contiguous()


class Heads(torch.autograd.Function):
    """Stacked projections [B*T, (H+2G)E] -> turned and scaled q, turned k, k at position 0, v; [B, heads, T, E]."""

    @staticmethod
    def forward(ctx, x, B, H, G, cos, sin):  # type: ignore[no-untyped-def]
        E = cos.shape[-1]
        ctx.save_for_backward(cos, sin)
        ctx.set_materialize_grads(False)
        ctx.scale = E**-0.5
        ctx.shape, ctx.heads = x.shape, (B, H, G, x.shape[0] // B, E)
        return _heads(x.view(B, -1, H + 2 * G, E), cos, sin, H, G, ctx.scale)

    @staticmethod
    def backward(ctx, gq, gk, g0, gv):  # type: ignore[no-untyped-def]
        cos, sin = ctx.saved_tensors
        B, H, G, T, E = ctx.heads
        zero = lambda g, n: torch.zeros(B, n, T, E, dtype=BF) if g is None else g
        gq, gk, gv = zero(gq, H), zero(gk, G), zero(gv, G)
        if g0 is None:
            g = _heads_grad_placed(gq, gk, gv, cos, sin, ctx.scale)
        else:
            g = _heads_grad(gq, gk, g0, gv, cos, sin, ctx.scale)
        return g.view(ctx.shape), None, None, None, None, None


# ---------------------------------------------------------------- scored rows


@fused
def _score(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = logits.float()
    top = x.amax(-1, keepdim=True)
    lse = (x - top).exp().sum(-1, keepdim=True).log() + top
    own = x.gather(1, targets[:, None])
    return lse, (lse - own)[:, 0], (own >= top).float()[:, 0]


@fused
def _score_grad(logits: Tensor, lse: Tensor, weights: Tensor) -> Tensor:
    return ((logits.float() - lse).exp() * weights[:, None]).to(BF)


@fused
def _distil(logits: Tensor, teacher: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """KL of teacher to student for each row, and its weighted gradient at the logits."""
    x, y = logits.float(), teacher.float()
    lx, ly = torch.log_softmax(x, -1), torch.log_softmax(y, -1)
    p = ly.exp()
    return (p * (ly - lx)).sum(-1), ((lx.exp() - p) * weights[:, None]).to(BF)


class ScoredRows(torch.autograd.Function):
    """Weighted cross-entropy of rows through the tied head; the gradient is computed at once.

    (h [N,D], embed [V,D], targets [N], weights [N]) -> (sum of weight * nll, nll [N], right [N])
    """

    @staticmethod
    def forward(ctx, h, embed, targets, weights):  # type: ignore[no-untyped-def]
        nll, right = torch.empty(len(targets)), torch.empty(len(targets))
        need = ctx.needs_input_grad[0]
        grad = torch.empty_like(h) if need else h
        for a in range(0, len(targets), 256):
            s = slice(a, a + 256)
            logits = h[s] @ embed.t()
            lse, nll[s], right[s] = _score(logits, targets[s])
            if need:
                # softmax part by the head, the target's part by its own row of the embedding
                g = _score_grad(logits, lse, weights[s]) @ embed
                grad[s] = g.float().sub_(weights[s, None] * embed[targets[s]].float()).to(BF)
        ctx.save_for_backward(grad)
        ctx.mark_non_differentiable(nll, right)
        return (weights * nll).sum(), nll, right

    @staticmethod
    def backward(ctx, g, *_):  # type: ignore[no-untyped-def]
        return ctx.saved_tensors[0] * g.to(BF), None, None, None


class DistilledRows(torch.autograd.Function):
    """Weighted KL of rows to a teacher's hidden states through the same head.

    (h [N,D], teacher [N,D], embed [V,D], weights [N]) -> (sum of weight * KL, KL [N])
    """

    @staticmethod
    def forward(ctx, h, teacher, embed, weights):  # type: ignore[no-untyped-def]
        kl, grad = torch.empty(len(h)), torch.empty_like(h)
        for a in range(0, len(h), 256):
            s = slice(a, a + 256)
            kl[s], g = _distil(h[s] @ embed.t(), teacher[s] @ embed.t(), weights[s])
            grad[s] = g @ embed
        ctx.save_for_backward(grad)
        ctx.mark_non_differentiable(kl)
        return (weights * kl).sum(), kl

    @staticmethod
    def backward(ctx, g, *_):  # type: ignore[no-untyped-def]
        return ctx.saved_tensors[0] * g.to(BF), None, None, None
