"""Instruction triplets of a run: read, capped, tokenized and drawn by weight."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from icae.config.asking import AskingConfig
from icae.config.data import TripletFile
from icae.config.types import TokenIds
from icae.data.triplets import Triplet, read_triplets
from icae.errors import TrainingError
from icae.model.objectives import DecoderTask, Sample, instruction
from icae.model.prompts import (
    CHAT,
    Tokenizer,
    render_answer,
    render_full_prompt,
    render_prompt,
    tokenize_context,
)

log = logging.getLogger(__name__)

MIN_CONTEXT = 8
"""Shortest context worth a sample, in tokens."""


@dataclass(frozen=True, kw_only=True)
class TokenizedTriplet:
    """An instruction triplet as token ids.

    Attributes:
        context_ids: The context's token ids.
        tasks: The prompt with each of its reference answers, at least one.
    """

    context_ids: TokenIds
    tasks: tuple[DecoderTask, ...]


@dataclass(frozen=True, kw_only=True)
class TripletSet:
    """The triplets taken from one file.

    Attributes:
        name: Name of the file.
        weight: How often it is drawn from, relative to the other sets.
        triplets: The triplets.
        left_out: Why triplets are left out -> how many.
    """

    name: str
    weight: float
    triplets: tuple[TokenizedTriplet, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        left_out = ", ".join(f"{n} {reason}" for reason, n in self.left_out.items() if n)
        return f"{len(self.triplets)} triplets" + (f" (left out: {left_out})" if left_out else "")


class InstructionSource:
    """Draws instruction triplets, a file by its weight and any of its triplets alike.

    Up to `per_context` triplets of one context share a sample: it is encoded once for them.
    """

    def __init__(self, sets: Sequence[TripletSet], *, per_context: int = 1) -> None:
        self.sets = tuple(s for s in sets if s.triplets)
        self.per_context = per_context
        weights = np.array([s.weight for s in self.sets], dtype=np.float64)
        self._bounds = np.cumsum(weights / weights.sum())
        self._places = [_places_of_contexts(own.triplets) for own in self.sets]

    def draw(self, rng: np.random.Generator, ratio: float) -> Sample:
        """One triplet, and others of its context; of each one reference answer, each as likely."""
        at = int(np.searchsorted(self._bounds[:-1], rng.random(), side="right"))
        triplets = self.sets[at].triplets
        first = int(rng.integers(len(triplets)))
        context_ids = triplets[first].context_ids
        chosen = [first]
        if self.per_context > 1:
            others = [i for i in self._places[at][context_ids.tobytes()] if i != first]
            chosen += rng.permutation(others)[: self.per_context - 1].astype(int).tolist()
        tasks = [triplets[i].tasks for i in chosen]
        answers = tuple(own[int(rng.integers(len(own)))] for own in tasks)
        return Sample(context_ids=context_ids, ratio=ratio, tasks=answers)


def _places_of_contexts(triplets: Sequence[TokenizedTriplet]) -> dict[bytes, list[int]]:
    """Where the triplets of each context stand."""
    places: dict[bytes, list[int]] = {}
    for i, triplet in enumerate(triplets):
        places.setdefault(triplet.context_ids.tobytes(), []).append(i)
    return places


def load_instructions(
    files: Sequence[TripletFile],
    tokenizer: Tokenizer,
    *,
    max_context: int,
    asking: AskingConfig = CHAT,
    seed: int = 0,
    full_prompts: bool = False,
) -> list[TripletSet]:
    """Read and tokenize triplets; those with a longer context are left out, not cut.

    What was taken and left out is logged, a line for each file. The seed decides what a cap
    leaves out; `full_prompts` keeps with each task the prompt that holds the whole context.

    Raises:
        InputError: If a file cannot be read.
        TrainingError: If nothing is left.
    """
    sets = []
    for file in files:
        taken = _load(
            file, tokenizer, max_context, asking=asking, seed=seed, full_prompts=full_prompts
        )
        log.info("%s: %s, weight %g", taken.name, taken, taken.weight)
        sets.append(taken)
    if not any(s.triplets for s in sets):
        raise TrainingError(
            "No triplet has a context that fits.",
            got=f"{len(files)} files",
            expected=f"contexts of {MIN_CONTEXT} to {max_context} tokens",
            fix="Raise data.triplet_context or name other triplet files.",
        )
    return sets


def _load(
    file: TripletFile,
    tokenizer: Tokenizer,
    max_context: int,
    *,
    asking: AskingConfig,
    seed: int,
    full_prompts: bool,
) -> TripletSet:
    fitting: list[tuple[Triplet, TokenIds]] = []
    left_out = {"context too long": 0, "context too short": 0}
    for triplet in read_triplets(Path(file.path)):
        context_ids = tokenize_context(tokenizer, triplet.context, asking)
        left_out["context too long"] += len(context_ids) > max_context
        left_out["context too short"] += len(context_ids) < MIN_CONTEXT
        if MIN_CONTEXT <= len(context_ids) <= max_context:
            fitting.append((triplet, context_ids))
    count = len(fitting) if file.cap is None else min(file.cap, len(fitting))
    chosen = sorted(np.random.default_rng(seed).permutation(len(fitting))[:count].tolist())
    triplets = tuple(
        TokenizedTriplet(
            context_ids=fitting[i][1], tasks=_tasks(fitting[i][0], tokenizer, asking, full_prompts)
        )
        for i in chosen
    )
    return TripletSet(
        name=Path(file.path).name,
        weight=float(count) if file.weight is None else file.weight,
        triplets=triplets,
        left_out=left_out | {"over the cap": len(fitting) - count},
    )


def _tasks(
    triplet: Triplet, tokenizer: Tokenizer, asking: AskingConfig, full_prompts: bool
) -> tuple[DecoderTask, ...]:
    """A task for each reference answer; those that differ in case alone count once."""
    prompt_ids = render_prompt(tokenizer, triplet.prompt, asking=asking)
    full_ids = (
        render_full_prompt(tokenizer, triplet.context, triplet.prompt) if full_prompts else None
    )
    references: dict[str, str] = {}
    for answer in triplet.answers:
        references.setdefault(answer.casefold().strip(), answer)
    return tuple(
        instruction(prompt_ids, render_answer(tokenizer, answer, asking), full_prompt_ids=full_ids)
        for answer in references.values()
    )
