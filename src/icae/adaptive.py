"""Adaptive compression: each span at the cheapest price that holds it.

A span can be bought at several prices: slots at 16x, 8x, 4x, 2x, slots refined at
compress time, or its verbatim tokens. `FidelityPolicy` says what is wanted:

- ``min_fidelity``: for each span the highest ratio that reaches it, verbatim if none does;
- ``budget``: the best use of a number of decoder positions;
- both: reach the fidelity where the budget allows, and go no further.

Shapes: L context tokens of a span, K slots, D hidden.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from icae.compression import Compressor, TokenizedText
from icae.errors import ConfigError, InputError
from icae.memory import Memory, Segment
from icae.refinement import RefineConfig, RefineTask, refine
from icae.spans import check_ratio
from icae.teachers import TeacherWriter
from icae.types import TokenIds

OnProgress = Callable[[int, int], None]
"""Called with (spans settled, spans in all)."""


@dataclass(frozen=True, kw_only=True)
class FidelityPolicy:
    """What a compressed text must hold, and what it may cost.

    Attributes:
        min_fidelity: Fidelity that every span must reach (0..1), or None.
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
    ) -> Memory:
        """Compress a text as a policy asks.

        Args:
            text: The text.
            policy: What every span must reach and what the whole may cost.
            name: Name of the document in the memory.
            on_progress: Called with (spans settled, spans in all).

        Returns:
            A memory of slot spans and verbatim spans; every fidelity in it is measured.

        Raises:
            InputError: If not even the highest ratio fits the budget.
        """
        pieces = self.compressor.cut(text)
        report = on_progress or (lambda done, total: None)
        if policy.budget is None:
            segments = self._reach(pieces, policy, report)
        else:
            segments = self._spend(pieces, policy, report)
        return self.compressor.memory(text, segments, name=name)

    def _reach(
        self, pieces: Sequence[TokenIds], policy: FidelityPolicy, report: OnProgress
    ) -> list[Segment]:
        """The cheapest segment of each span that has the fidelity."""
        target = policy.min_fidelity
        assert target is not None
        settled: dict[int, Segment] = {}

        def keep(found: dict[int, Segment]) -> None:
            for i, segment in found.items():
                if _fidelity(segment) >= target:
                    settled[i] = segment
            report(len(settled), len(pieces))

        for ratio in policy.ladder:
            short = [i for i in range(len(pieces)) if i not in settled]
            segments = self.compressor.encode([pieces[i] for i in short], ratio=ratio)
            encoded = dict(zip(short, segments, strict=True))
            keep(encoded)
            if policy.refine is not None:
                config = replace(policy.refine, target=target)
                rest = {i: segment for i, segment in encoded.items() if i not in settled}
                for i, refined in self.refined(rest, config):
                    keep({i: refined})
        for i, ids in enumerate(pieces):
            if i not in settled:
                keep({i: self.compressor.keep(ids)})
        return [settled[i] for i in range(len(pieces))]

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
        if policy.refine is not None:
            short = {i: s for i, s in enumerate(chosen) if _fidelity(s) < cap}
            for i, refined in self.refined(short, replace(policy.refine, target=cap)):
                chosen[i] = refined
        report(len(pieces), len(pieces))
        return chosen

    def refined(
        self, segments: Mapping[int, Segment], config: RefineConfig
    ) -> Iterator[tuple[int, Segment]]:
        """Refine segments of slots.

        Args:
            segments: Index -> segment of slots.
            config: When to stop and what to weigh.

        Yields:
            (index, refined segment) in the order in which they finish.
        """
        indices = list(segments)
        tasks = [
            RefineTask(
                token_ids=segments[i].token_ids,
                slots_KD=segments[i].slots_KD,
                teachers=self.teachers.later(segments[i].token_ids),
            )
            for i in indices
        ]
        for position, result in refine(self.compressor.runtime.model, tasks, config):
            before = segments[indices[position]]
            yield (
                indices[position],
                replace(
                    before,
                    slots_KD=result.slots_KD,
                    token_fidelity=result.token_fidelity,
                    refine_steps=before.refine_steps + result.steps,
                    refine_seconds=before.refine_seconds + result.seconds,
                ),
            )


def spend(offers: Sequence[Sequence[Segment]], budget: int, *, enough: float) -> list[Segment]:
    """Choose one offer for each span so that most tokens are held within a budget.

    Starts from the cheapest offer of each span and buys, again and again, the upgrade that
    holds most further tokens for each further position. Fidelity above `enough` counts
    nothing.

    Args:
        offers: For each span, what it can be bought at; every fidelity is known.
        budget: Most decoder positions of all spans together.
        enough: Fidelity beyond which more is worth nothing (0..1).

    Returns:
        One segment for each span.

    Raises:
        InputError: If the cheapest offers together exceed the budget.
    """
    ranked = [sorted(own, key=lambda s: (s.positions, -_fidelity(s))) for own in offers]
    chosen = [0] * len(ranked)
    left = budget - sum(own[0].positions for own in ranked)
    if left < 0:
        raise InputError(
            "The text does not fit the budget at the highest ratio.",
            got=f"{budget} positions",
            expected=f"at least {budget - left}",
            fix="Raise the budget, or allow a higher ratio.",
        )
    heap: list[tuple[float, int, int, int]] = []

    def offer(i: int) -> None:
        now = ranked[i][chosen[i]]
        best: tuple[float, int] | None = None
        for j in range(chosen[i] + 1, len(ranked[i])):
            more = ranked[i][j].positions - now.positions
            gain = _held(ranked[i][j], enough) - _held(now, enough)
            if gain > 0 and 0 < more <= left and (best is None or gain / more > best[0]):
                best = gain / more, j
        if best is not None:
            heapq.heappush(heap, (-best[0], i, best[1], chosen[i]))

    for i in range(len(ranked)):
        offer(i)
    while heap:
        _, i, j, start = heapq.heappop(heap)
        if start != chosen[i]:
            continue
        price = ranked[i][j].positions - ranked[i][chosen[i]].positions
        if price <= left:
            left -= price
            chosen[i] = j
        offer(i)
    return [own[j] for own, j in zip(ranked, chosen, strict=True)]


def _fidelity(segment: Segment) -> float:
    assert segment.token_fidelity is not None
    return segment.token_fidelity.share


def _held(segment: Segment, enough: float) -> float:
    """Tokens held, counted up to the fidelity that is enough."""
    return len(segment.token_ids) * min(_fidelity(segment), enough)
