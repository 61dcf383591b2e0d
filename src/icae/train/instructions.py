"""Instruction triplets of a run: read, capped, tokenized and drawn by weight."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from icae.config import Recipe, TripletFile
from icae.config.types import TokenIds
from icae.data.triplets import Triplet, read_triplets
from icae.errors import TrainingError
from icae.model.objectives import DecoderTask, Sample, instruction
from icae.model.prompts import (
    Tokenizer,
    render_answer,
    render_full_prompt,
    render_prompt,
    tokenize_context,
)
from icae.train.stages import of_full_context

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


def load_instructions(recipe: Recipe, tokenizer: Tokenizer) -> list[TripletSet]:
    """Read and tokenize the triplets of a recipe; longer contexts are left out, not cut.

    What was taken and left out is logged, a line for each file. The seed decides what a cap
    leaves out; for a reader of the full context each task has the prompt that holds it.

    Raises:
        InputError: If a file cannot be read.
        TrainingError: If nothing is left.
    """
    sets = []
    for file in recipe.data.triplets:
        taken = _load(file, recipe, tokenizer)
        log.info("%s: %s, weight %g", taken.name, taken, taken.weight)
        sets.append(taken)
    if not any(s.triplets for s in sets):
        raise TrainingError(
            "No triplet has a context that fits.",
            got=f"{len(sets)} files",
            expected=f"contexts of {MIN_CONTEXT} to {recipe.data.longest_triplet} tokens",
            fix="Raise data.triplet_context or name other triplet files.",
        )
    return sets


def _load(file: TripletFile, recipe: Recipe, tokenizer: Tokenizer) -> TripletSet:
    longest = recipe.data.longest_triplet
    fitting: list[tuple[Triplet, TokenIds]] = []
    left_out = {"context too long": 0, "context too short": 0}
    for triplet in read_triplets(Path(file.path)):
        context_ids = tokenize_context(tokenizer, triplet.context, recipe.model.asking)
        left_out["context too long"] += len(context_ids) > longest
        left_out["context too short"] += len(context_ids) < MIN_CONTEXT
        if MIN_CONTEXT <= len(context_ids) <= longest:
            fitting.append((triplet, context_ids))
    count = len(fitting) if file.cap is None else min(file.cap, len(fitting))
    order = np.random.default_rng(recipe.optim.seed).permutation(len(fitting))
    chosen = (fitting[i] for i in sorted(order[:count].tolist()))
    return TripletSet(
        name=Path(file.path).name,
        weight=float(count) if file.weight is None else file.weight,
        triplets=tuple(
            TokenizedTriplet(context_ids=context_ids, tasks=_tasks(triplet, recipe, tokenizer))
            for triplet, context_ids in chosen
        ),
        left_out=left_out | {"over the cap": len(fitting) - count},
    )


def _tasks(triplet: Triplet, recipe: Recipe, tokenizer: Tokenizer) -> tuple[DecoderTask, ...]:
    """A task for each reference answer; those that differ in case alone count once."""
    asking = recipe.model.asking
    prompt_ids = render_prompt(tokenizer, triplet.prompt, asking=asking)
    full_ids = None
    if of_full_context(recipe):
        full_ids = render_full_prompt(tokenizer, triplet.context, triplet.prompt)
    references: dict[str, str] = {}
    for answer in triplet.answers:
        references.setdefault(answer.casefold().strip(), answer)
    return tuple(
        instruction(
            prompt_ids,
            render_answer(tokenizer, answer, asking),
            full_prompt_ids=full_ids,
        )
        for answer in references.values()
    )
