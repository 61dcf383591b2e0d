"""Adaptive compression: each span at the cheapest price that holds it.

A span can be bought at several prices: slots at 16x, 8x, 4x, 2x, slots refined at
compress time, or its verbatim tokens. `FidelityPolicy` says what is wanted:

- ``min_fidelity``: for each span the highest ratio that reaches it, verbatim if none does.
  Where that leaves room for no error at all, the decoder must also write the span back
  freely without one: under teacher forcing a token may lead by a hair and be lost later;
- ``budget``: the best use of a number of decoder positions;
- both: reach the fidelity where the budget allows, and go no further.

Shapes: L context tokens of a span, K slots, D hidden.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from icae.compression.budget import spend
from icae.compression.compressor import Compressor, TokenizedText
from icae.compression.refinement import RefineConfig, RefineTask, refine
from icae.compression.teachers import TeacherWriter
from icae.config.spans import check_ratio, needs_every_token
from icae.config.types import TokenIds
from icae.errors import ConfigError, InputError
from icae.memory import Memory, Segment, hash_token_ids, segment_of_span

OnProgress = Callable[[int, int], None]
"""Called with (work done, work in all); the unit is the policy's own."""

OnSettled = Callable[[Callable[[], Memory]], None]
"""Called when spans are settled, with what makes the memory so far: the rest verbatim."""

CHECKED_AT_ONCE = 4
"""Refined spans that are written back together, to see whether they come back exactly."""


def _silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, kw_only=True)
class FidelityPolicy:
    """What a compressed text must hold, and what it may cost.

    Attributes:
        min_fidelity: Fidelity that every span must reach (0..1), or None. A span of which
            it allows no token to be wrong must also be written back freely without error.
        budget: Most decoder positions of the whole text, or None.
        ratios: Compression ratios to try; verbatim is always tried last.
        refine: How slots that fall short are refined before a lower ratio or verbatim is
            tried (its `target` is `min_fidelity`); None tries the next one at once.

    Raises:
        ConfigError: If nothing is asked for, or a value is out of range.
    """

    min_fidelity: float | None = None
    budget: int | None = None
    ratios: tuple[float, ...] = (16.0, 8.0, 4.0, 2.0)
    refine: RefineConfig | None = None

    def __post_init__(self) -> None:
        if self.min_fidelity is None and self.budget is None:
            raise ConfigError(
                "Adaptive compression needs a goal.",
                got="neither a fidelity nor a budget",
                expected="min_fidelity, budget, or both",
            )
        if self.min_fidelity is not None and not 0 < self.min_fidelity <= 1:
            raise ConfigError(
                "The fidelity to reach is out of range.",
                got=str(self.min_fidelity),
                expected="above 0, at most 1 (0.98 stands for 98 % of the tokens)",
            )
        if self.budget is not None and self.budget < 1:
            raise ConfigError(
                "The budget is out of range.", got=str(self.budget), expected=">= 1 position"
            )
        if not self.ratios:
            raise ConfigError("There is no ratio to try.", expected="at least one, for example 4")
        for ratio in self.ratios:
            check_ratio(ratio)

    @property
    def ladder(self) -> tuple[float, ...]:
        """The ratios, cheapest (highest) first, each once."""
        return tuple(sorted(set(self.ratios), reverse=True))


@dataclass(frozen=True, kw_only=True)
class AdaptiveCompressor:
    """Makes memories whose spans differ in ratio.

    Attributes:
        compressor: Encodes spans and measures how they are held.
        teachers: Writes what refined slots must also be good for.
    """

    compressor: Compressor
    teachers: TeacherWriter

    def compress(
        self,
        text: TokenizedText,
        *,
        policy: FidelityPolicy,
        name: str,
        on_progress: OnProgress | None = None,
        start: Memory | None = None,
        on_settled: OnSettled = lambda make: None,
    ) -> Memory:
        """Compress a text as a policy asks.

        A long refinement need not be lost: the memory so far, in which spans that are not
        settled are verbatim, keeps the promise of the policy, and can be gone on from.

        Args:
            text: The text.
            policy: What every span must reach and what the whole may cost.
            name: Name of the document in the memory.
            on_progress: Called with (work done, work in all), at each refinement step, too.
            start: A memory of the same text to go on from; its slots that hold the
                fidelity are kept. It has no part in a policy with a budget.
            on_settled: Called when refined spans are settled, without a budget.

        Returns:
            A memory of slot spans and verbatim spans; every fidelity in it is measured,
            and whether a span with no error left is written back freely.

        Raises:
            InputError: If not even the highest ratio fits the budget, or the memory to go
                on from is of another text.
        """
        pieces = self.compressor.cut(text)

        def memory(settled: Mapping[int, Segment]) -> Memory:
            keep = self.compressor.keep
            segments = [settled[i] if i in settled else keep(ids) for i, ids in enumerate(pieces)]
            return self.compressor.memory(text, segments, name=name)

        if policy.budget is not None:
            return memory(dict(enumerate(self._spend(pieces, policy, on_progress or _silent))))
        settled = {} if start is None else self._settled(start, pieces, policy)
        return memory(
            self._reach(
                pieces,
                policy,
                on_progress or _silent,
                settled=settled,
                on_settled=lambda: on_settled(functools.partial(memory, dict(settled))),
            )
        )

    def _settled(
        self, start: Memory, pieces: Sequence[TokenIds], policy: FidelityPolicy
    ) -> dict[int, Segment]:
        """The segments of a memory to go on from that hold the fidelity."""
        target = policy.min_fidelity
        assert target is not None
        self.compressor.provenance.require_match(
            start.provenance, what_self="the loaded adapter", what_other="the memory to go on from"
        )
        ids = np.concatenate(pieces)
        if [document.token_ids_sha256 for document in start.documents] != [hash_token_ids(ids)] or [
            span.tokens for span in start.spans
        ] != [len(piece) for piece in pieces]:
            raise InputError(
                "The memory to go on from is of another text.",
                got=", ".join(document.name for document in start.documents),
                expected="the memory that a stopped run of the same command left",
                fix="Start anew, without --resume.",
            )
        found = {
            i: segment_of_span(start, i, piece)
            for i, piece in enumerate(pieces)
            if start.spans[i].kind == "slots" and start.spans[i].fidelity is not None
        }
        return {i: s for i, s in found.items() if s.token_fidelity is not None and holds(s, target)}

    def segments(
        self,
        pieces: Sequence[TokenIds],
        *,
        policy: FidelityPolicy,
        on_progress: OnProgress | None = None,
    ) -> list[Segment]:
        """Compress spans as a policy asks.

        Args:
            pieces: Token ids of each span.
            policy: What every span must reach and what all of them may cost.
            on_progress: As for `compress`.

        Returns:
            One segment of slots or verbatim tokens for each span.

        Raises:
            InputError: If not even the highest ratio fits the budget.
        """
        report = on_progress or _silent
        if policy.budget is not None:
            return self._spend(pieces, policy, report)
        settled = self._reach(pieces, policy, report, settled={}, on_settled=lambda: None)
        return [
            settled[i] if i in settled else self.compressor.keep(ids)
            for i, ids in enumerate(pieces)
        ]

    def _reach(
        self,
        pieces: Sequence[TokenIds],
        policy: FidelityPolicy,
        report: OnProgress,
        *,
        settled: dict[int, Segment],
        on_settled: Callable[[], None],
    ) -> dict[int, Segment]:
        """Settle spans at the cheapest ratio that has the fidelity, on top of those that are."""
        target = policy.min_fidelity
        assert target is not None
        progress = _LadderProgress(len(pieces), policy, report)
        for rung, ratio in enumerate(policy.ladder):
            short = [i for i in range(len(pieces)) if i not in settled]
            segments = self.compressor.encode([pieces[i] for i in short], ratio=ratio)
            encoded = dict(zip(short, self.compressor.written_back(segments), strict=True))
            settled |= {i: s for i, s in encoded.items() if holds(s, target)}
            progress.show(rung, len(settled), 0.0)
            if policy.refine is not None:
                config = replace(policy.refine, target=target)
                rest = {i: segment for i, segment in encoded.items() if i not in settled}
                on_step = functools.partial(progress.step, rung, len(settled))
                for i, refined in self.refined(rest, config, on_step=on_step):
                    if holds(refined, target):
                        settled[i] = refined
                        on_settled()
        report(1, 1)
        return settled

    def _spend(
        self, pieces: Sequence[TokenIds], policy: FidelityPolicy, report: OnProgress
    ) -> list[Segment]:
        """The best segments for a number of positions, refined afterwards if asked for."""
        assert policy.budget is not None
        offers: list[list[Segment]] = [[] for _ in pieces]
        for step, ratio in enumerate(policy.ladder):
            for own, segment in zip(
                offers, self.compressor.encode(pieces, ratio=ratio), strict=True
            ):
                own.append(segment)
            report(len(pieces) * step // len(policy.ladder), len(pieces))
        for i, ids in enumerate(pieces):
            offers[i].append(self.compressor.keep(ids))
        cap = 1.0 if policy.min_fidelity is None else policy.min_fidelity
        chosen = spend(offers, policy.budget, enough=cap)
        slots = [i for i, segment in enumerate(chosen) if segment.kind == "slots"]
        tried = self.compressor.written_back([chosen[i] for i in slots])
        found = dict(zip(slots, tried, strict=True))
        if policy.refine is not None:
            short = {i: s for i, s in found.items() if not holds(s, cap)}
            found |= self.refined(short, replace(policy.refine, target=cap), on_step=report)
        report(1, 1)
        return [found.get(i, segment) for i, segment in enumerate(chosen)]

    def refined(
        self,
        segments: Mapping[int, Segment],
        config: RefineConfig,
        *,
        on_step: OnProgress = _silent,
    ) -> Iterator[tuple[int, Segment]]:
        """Refine segments of slots, and see which are then written back without an error.

        Args:
            segments: Index -> segment of slots.
            config: When to stop and what to weigh.
            on_step: Called after each step, with (steps taken or saved, most steps).

        Yields:
            (index, refined segment), about in the order in which they finish.
        """
        indices = list(segments)
        tasks = [
            RefineTask(
                token_ids=segments[i].token_ids,
                slots_KD=segments[i].slots_KD,
            )
            for i in indices
        ]
        model, teach = self.compressor.runtime.model, self.teachers.write
        unchecked: dict[int, Segment] = {}
        for position, result in refine(model, tasks, config, teach=teach, on_step=on_step):
            i = indices[position]
            unchecked[i] = replace(
                segments[i],
                slots_KD=result.slots_KD,
                token_fidelity=result.token_fidelity,
                refine_steps=segments[i].refine_steps + result.steps,
                refine_seconds=segments[i].refine_seconds + result.seconds,
            )
            if len(unchecked) == CHECKED_AT_ONCE:
                yield from self._checked(unchecked)
                unchecked = {}
        yield from self._checked(unchecked)

    def _checked(self, segments: Mapping[int, Segment]) -> Iterator[tuple[int, Segment]]:
        return zip(segments, self.compressor.written_back(list(segments.values())), strict=True)


def holds(segment: Segment, target: float) -> bool:
    """Whether a measured segment of slots has a fidelity, beyond doubt.

    Where the fidelity leaves room for no wrong token, teacher forcing is not enough: the
    decoder must have written the span back freely.

    Args:
        segment: The segment; whether it is written back was tried.
        target: Fidelity wanted (0..1).
    """
    if needs_every_token(len(segment.token_ids), target):
        return segment.written_back is True
    assert segment.token_fidelity is not None
    return segment.token_fidelity.share >= target


@dataclass(frozen=True)
class _LadderProgress:
    """How far the work on a ladder of ratios is: every span may need every step of each."""

    spans: int
    policy: FidelityPolicy
    report: OnProgress

    def show(self, rung: int, settled: int, part: float) -> None:
        """Report a share of one rung's work on the spans that were not settled before."""
        rungs = len(self.policy.ladder)
        done = settled * rungs + (self.spans - settled) * (rung + part)
        self.report(round(100 * done), 100 * self.spans * rungs)

    def step(self, rung: int, settled: int, done: int, total: int) -> None:
        """Report refinement steps on one rung."""
        self.show(rung, settled, done / max(1, total))
