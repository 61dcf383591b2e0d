"""Peers of the memory that train nothing: a pruned key-value cache, and the best chunks of a text.

A pruned cache is the frozen decoder's own: the context is read in full, then each layer and
key-value head keeps as many places as the memory has slots. What is kept stays at its place in the
prompt (its keys are not turned), and so does the question behind it.

Sources: Devoto et al. 2024 (key norm, arXiv:2406.11430), Li et al. 2024 (SnapKV,
arXiv:2404.14469), Xiao et al. 2024 (a sliding window with sinks, arXiv:2309.17453), Robertson and
Zaragoza 2009 (BM25).

Shape legend: H key-value heads, P places, K places kept, Q query heads, S inputs, W head width.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d
from transformers import DynamicCache

from icae.config.types import Answer, TokenIds
from icae.decode.batching import POSITIONS_PER_BATCH, span_batches
from icae.decode.prefix import common_length
from icae.decode.torch_kv import keeps_all
from icae.decode.torch_rows import Row as DecodingRow
from icae.engine import Engine
from icae.errors import InputError
from icae.evals.decoding import TokenScores, peer_budget
from icae.evals.held import answer_rows
from icae.evals.questions import Question
from icae.evals.respondents import Read, Respondent, TextSource, cut_text
from icae.model.around import body_of
from icae.model.decoder import DecoderRow, KeyValues, joined, label_logits, places_of, read
from icae.model.losses import score_task
from icae.model.objectives import DecoderTask
from icae.model.prompts import render_full_prompt, tokenize_with_offsets

SINKS = 4
"""First tokens that a sliding window keeps."""
WINDOW = 32
"""Last tokens whose attention SnapKV counts, and which it keeps: at most half of what is kept."""
POOL = 5
"""Neighbouring places over which SnapKV averages attention."""
CHUNK = 64
"""Most tokens of a chunk that is looked for; at least two fit."""
BM25_K, BM25_B = 1.5, 0.75
"""How soon a word's repeats stop counting, and how much a chunk's length counts."""
MARK = "\u2042"
"""Stands for a context where its place in a prompt is looked for."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A prompt whose context was read.

    Attributes:
        engine: Its frozen decoder read.
        ids: Token ids of the prompt.
        own: Where the context stands in it.
        past: Keys and values of everything before the question.
        budget: Places of the context that may be kept.
    """

    engine: Engine
    ids: TokenIds
    own: slice
    past: KeyValues
    budget: int

    @torch.inference_mode()
    def attention(self, start: int, end: int) -> list[Tensor]:
        """Attention [H, P] of the inputs start..end on the places of the context before them.

        The mean over these inputs and over the query heads of a key-value head, in every layer.
        """
        runtime = self.engine.runtime
        decoder, inputs_SD = runtime.model.decoder, runtime.read_tokens(self.ids[start:end])
        usual = decoder.config._attn_implementation
        decoder.set_attn_implementation("eager")  # the others do not say what they attend to
        try:
            made = body_of(decoder)(
                inputs_embeds=inputs_SD[None],
                attention_mask=torch.ones(1, end, dtype=torch.long, device=inputs_SD.device),
                position_ids=torch.arange(start, end, device=inputs_SD.device)[None],
                past_key_values=DynamicCache(places_of(self.past, 0, start)),
                use_cache=True,
                output_attentions=True,
            ).attentions
        finally:
            decoder.set_attn_implementation(usual)
        heads = self.past[0][0].shape[1]
        places = slice(self.own.start, min(start, self.own.stop))
        return [
            own_1QSP[0].unflatten(0, (heads, -1)).mean(dim=(1, 2))[:, places].float()
            for own_1QSP in made
        ]


Rank = Callable[[Looked], list[Tensor]]
"""What was read -> for every layer the worth [H, P] of each place of the context."""


def by_key_norm(looked: Looked) -> list[Tensor]:
    """Keys of low norm are attended to most."""
    own = places_of(looked.past, looked.own.start, looked.own.stop)
    return [-keys[0].float().norm(dim=-1) for keys, _ in own]


def by_recency(looked: Looked) -> list[Tensor]:
    """The last places, and the first few."""
    worth_P = torch.arange(looked.own.stop - looked.own.start, dtype=torch.float32)
    worth_P[: min(SINKS, looked.budget // 2)] = math.inf
    return [worth_P.expand(keys.shape[1], -1) for keys, _ in looked.past]


def by_last_tokens(looked: Looked) -> list[Tensor]:
    """SnapKV without the question: what the context's last tokens attend to, and these."""
    window = min(WINDOW, looked.budget // 2)
    if window == 0:
        return by_recency(looked)
    seen = looked.attention(looked.own.stop - window, looked.own.stop)
    return [
        torch.cat([_pooled(own), own.new_full((len(own), window), math.inf)], 1) for own in seen
    ]


def by_question(looked: Looked) -> list[Tensor]:
    """SnapKV with the question: what it attends to, and the rest of the prompt behind it."""
    return [_pooled(own) for own in looked.attention(looked.own.stop, len(looked.ids))]


def _pooled(worth_HP: Tensor) -> Tensor:
    pooled: Tensor = avg_pool1d(worth_HP, POOL, 1, POOL // 2, count_include_pad=False)
    return pooled


@dataclass(frozen=True, kw_only=True)
class HeldCaches:
    """Contexts as pruned caches, each with all of its prompt that stands before the question.

    Attributes:
        engine: Its frozen decoder reads.
        caches: Keys and values of each.
        starts: Where the question begins in each prompt.
        positions: Places of each that stand for the context.
    """

    engine: Engine
    caches: Sequence[KeyValues]
    starts: Sequence[int]
    positions: Sequence[int]

    @torch.inference_mode()
    def score(self, tasks: Sequence[DecoderTask]) -> list[TokenScores]:
        """Teacher forcing of tasks whose prompts begin with what was read."""
        rows = []
        for task, cache, start in zip(tasks, self.caches, self.starts, strict=True):
            ids = task.target_ids[start:]
            scored = slice(len(ids) - 1 - task.labels, len(ids) - 1)
            places = range(start, start + len(ids))
            rows.append(DecoderRow(ids=ids, positions=places, scored=scored, past=cache))
        sizes = [
            row_past.shape[2] + len(row.ids)
            for row, ((row_past, _), *_) in zip(rows, self.caches, strict=True)
        ]
        scores: list[TokenScores] = []
        for part in span_batches(sizes, bound=POSITIONS_PER_BATCH):
            made = label_logits(self.engine.runtime.model.decoder, rows[part])
            scores += [TokenScores.of(own) for own in map(score_task, made, tasks[part])]
        return scores

    def answer(self, prompts: Sequence[TokenIds], limit: int) -> list[Answer]:
        """Greedy answers to prompts that begin with what was read."""
        rows = [
            DecodingRow(
                front=cache,
                tail_SD=self.engine.runtime.read_tokens(ids[start:]),
                positions=range(start, len(ids)),
                limit=limit,
            )
            for ids, cache, start in zip(prompts, self.caches, self.starts, strict=True)
        ]
        return answer_rows(self.engine, self.engine.runtime.model.decoder, rows, self.positions)


def pruned(engine: Engine, rank: Rank, *, each_question: bool = False) -> Respondent:
    """The frozen decoder behind the part of its own cache that is worth most.

    Args:
        engine: Its decoder reads.
        rank: Says what each place is worth.
        each_question: Whether the question has a say: then a context is read for every one.

    Raises:
        InputError: If the cache of this base model forgets.
    """
    if not keeps_all(engine.runtime.model.decoder.config):
        raise InputError(
            "The cache of this base model cannot be pruned.",
            got="layers that forget",
            expected="full attention in every layer",
            fix="Leave the readers that prune out of --readers.",
        )

    def read_all(questions: Sequence[Question], ratio: float) -> Read:
        prompts = [render_full_prompt(engine.tokenizer, q.context, q.prompt) for q in questions]
        made: dict[int, tuple[KeyValues, int, int]] = {}
        for number, (question, ids) in enumerate(zip(questions, prompts, strict=True)):
            key = number if each_question else question.group
            if key not in made:
                budget = peer_budget(len(question.context_ids), engine.config, ratio)
                made[key] = _kept(engine, question, ids, budget, rank)
        keys = [n if each_question else q.group for n, q in enumerate(questions)]
        caches, starts, positions = zip(*(made[key] for key in keys), strict=True)
        return Read(
            prompts=prompts,
            held=HeldCaches(engine=engine, caches=caches, starts=starts, positions=positions),
            positions=positions,
            texts=[None] * len(prompts),
            read_before=sum(start for _, start, _ in made.values()),
        )

    return read_all


@torch.inference_mode()
def _kept(
    engine: Engine, question: Question, ids: TokenIds, budget: int, rank: Rank
) -> tuple[KeyValues, int, int]:
    """The pruned cache of a prompt up to its question, where that begins, and places kept."""
    runtime = engine.runtime
    own = _place(engine.tokenizer, question, ids)
    places_1P = torch.arange(own.stop, device=runtime.model.device)[None]
    past = read(runtime.model.decoder, runtime.read_tokens(ids[: own.stop])[None], places_1P)
    budget = min(budget, own.stop - own.start)
    worth = rank(Looked(engine=engine, ids=ids, own=own, past=past, budget=budget))
    layers = []
    for worth_HP, pair in zip(worth, places_of(past, own.start, own.stop), strict=True):
        best_HK = worth_HP.topk(budget, dim=1).indices.sort(dim=1).values.to(pair[0].device)
        best_1HKW = best_HK[None, :, :, None].expand(-1, -1, -1, pair[0].shape[3])
        keys, values = (part.gather(2, best_1HKW) for part in pair)
        layers.append((keys, values))
    return joined([places_of(past, 0, own.start), tuple(layers)]), own.stop, budget


def _place(tokenizer: Any, question: Question, ids: TokenIds) -> slice:
    """Where the context stands in a prompt: between what it shares with another context's."""
    other = render_full_prompt(tokenizer, MARK, question.prompt)
    return slice(common_length(ids, other), len(ids) - common_length(ids[::-1], other[::-1]))


def best_chunks(engine: Engine) -> TextSource:
    """The chunks of each context that match its question best (BM25), in their own order."""

    def texts(questions: Sequence[Question], ratio: float) -> list[str]:
        found = []
        for question in questions:
            budget = peer_budget(len(question.context_ids), engine.config, ratio)
            _, starts = tokenize_with_offsets(engine.tokenizer, question.context)
            size = max(1, min(CHUNK, budget // 2))
            words: defaultdict[int, str] = defaultdict(str)
            for word in re.finditer(r"\S+\s*", question.context):
                words[bisect_left(starts, word.start()) // size] += word[0]
            chunks = list(words.values())
            worth = bm25(question.prompt, chunks)
            best = sorted(range(len(chunks)), key=lambda i: -worth[i])[: -(-budget // size)]
            joint = "\n".join(chunks[i].strip() for i in sorted(best))
            found.append(cut_text(engine.tokenizer, joint, budget))
        return found

    return texts


def bm25(query: str, texts: Sequence[str]) -> list[float]:
    """How well each text matches a query, by the words they share."""
    said = [Counter(_words(text)) for text in texts]
    mean = sum(own.total() for own in said) / len(said) or 1.0
    scores = [0.0] * len(said)
    for word in dict.fromkeys(_words(query)):
        holders = sum(word in own for own in said)
        rarity = math.log(1 + (len(said) - holders + 0.5) / (holders + 0.5))
        for i, own in enumerate(said):
            length = 1 - BM25_B + BM25_B * own.total() / mean
            scores[i] += rarity * own[word] * (BM25_K + 1) / (own[word] + BM25_K * length)
    return scores


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
