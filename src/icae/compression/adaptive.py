"""Adaptive compression: each span at the cheapest price that holds it.

A span can be bought at several prices: slots at 16x, 8x, 4x, 2x, slots refined at
compress time, or its verbatim tokens. `FidelityPolicy` says what is wanted:

- ``min_fidelity``: for each span the highest ratio that reaches it, verbatim if none does; where
  that leaves room for no error, the decoder must also write the span back freely without one;
- ``budget``: the best use of a number of decoder positions; lost numbers, code and names count
  for more than other tokens (`icae.compression.spending`);
- both: reach the fidelity where the budget allows, and go no further.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from icae.compression.compressor import (
    Compressor,
    OnProgress,
    TokenizedText,
    readable,
    with_spans,
)
from icae.compression.refinement import RefineConfig, RefineTask, refine
from icae.compression.spending import spend, words_of
from icae.compression.teachers import TeacherWriter
from icae.config.parsing import check
from icae.config.spans import check_ratio, needs_every_token
from icae.config.types import TokenIds
from icae.decode.reconstruction import original_ids
from icae.errors import InputError
from icae.memory import Memory, Span, hash_token_ids

OnSettled = Callable[[Callable[[], Memory]], None]
"""Called when spans are settled, with what makes the memory so far: the rest verbatim."""

CHECKED_AT_ONCE = 16
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
        goals = self.min_fidelity, self.budget
        check(
            goals != (None, None),
            "Adaptive compression needs a goal.",
            goals,
            "a fidelity, a budget, or both",
        )
        check(
            self.min_fidelity is None or 0 < self.min_fidelity <= 1,
            "The fidelity to reach is out of range.",
            self.min_fidelity,
            "above 0, at most 1 (0.98 stands for 98 % of the tokens)",
        )
        positions = self.budget is None or self.budget >= 1
        check(positions, "The budget is out of range.", self.budget, ">= 1 position")
        check(bool(self.ratios), "There is no ratio to try.", (), "at least one, for example 4")
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

        Raises:
            InputError: If not even the highest ratio fits the budget, or the memory to go
                on from is of another text.
        """
        cut = self.compressor.cut(text)
        memory = functools.partial(self.compressor.memory, text, name=name)
        spans = self.choose(
            cut,
            policy=policy,
            on_progress=on_progress,
            settled={} if start is None else self._settled(start, text, cut, policy),
            on_settled=lambda spans: on_settled(functools.partial(memory, spans)),
        )
        return memory(spans)

    def _settled(
        self, start: Memory, text: TokenizedText, cut: Sequence[Span], policy: FidelityPolicy
    ) -> dict[int, Span]:
        """The spans of a memory to go on from that hold the fidelity; none with a budget."""
        target = policy.min_fidelity
        if policy.budget is not None or target is None:
            return {}
        self.compressor.provenance.require_match(
            start.provenance, what_self="the loaded adapter", what_other="the memory to go on from"
        )
        digests = [document.token_ids_sha256 for document in start.documents]
        lengths = [span.tokens for span in start.spans]
        if digests != [hash_token_ids(text.ids)] or lengths != [span.tokens for span in cut]:
            raise InputError(
                "The memory to go on from is of another text.",
                got=", ".join(document.name for document in start.documents),
                expected="the memory that a stopped run of the same command left",
                fix="Start anew, without --resume.",
            )
        return {
            i: span
            for i, span in enumerate(start.spans)
            if span.kind != "tokens" and span.token_fidelity is not None and holds(span, target)
        }

    def choose(
        self,
        cut: Sequence[Span],
        *,
        policy: FidelityPolicy,
        on_progress: OnProgress | None = None,
        settled: Mapping[int, Span] = MappingProxyType({}),
        on_settled: Callable[[Sequence[Span]], None] = lambda spans: None,
    ) -> list[Span]:
        """Compress verbatim spans as a policy asks; see `compress`.

        Where there is no budget, some may have the fidelity already, by their indices.
        """
        self.compressor.require_alone("A ratio for each span")
        report = on_progress or _silent
        if policy.budget is not None:
            chosen = self._spend(cut, policy, policy.budget, report)
        else:
            assert policy.min_fidelity is not None
            chosen = self._reach(
                cut, policy, policy.min_fidelity, report, dict(settled), on_settled
            )
        report(1, 1)
        return chosen

    def _reach(
        self,
        cut: Sequence[Span],
        policy: FidelityPolicy,
        target: float,
        report: OnProgress,
        settled: dict[int, Span],
        on_settled: Callable[[Sequence[Span]], None],
    ) -> list[Span]:
        """Settle spans at the cheapest ratio that has the fidelity, on top of those that are."""
        rungs = len(policy.ladder)

        def so_far() -> list[Span]:
            return [settled.get(i, span) for i, span in enumerate(cut)]

        def show(rung: int, before: int, steps: int, total: int) -> None:
            """Every span that was not settled before a rung may need every step of each."""
            part = steps / max(1, total)
            done = before * rungs + (len(cut) - before) * (rung + part)
            report(round(100 * done), 100 * len(cut) * rungs)

        for rung, ratio in enumerate(policy.ladder):
            short = {i: span for i, span in enumerate(cut) if i not in settled}
            ids = {i: span.verbatim_ids for i, span in short.items()}
            encoded = self.compressor.encode(list(short.values()), ratio=ratio)
            tried = dict(self._checked(dict(zip(short, encoded, strict=True)), ids))
            settled |= {i: span for i, span in tried.items() if holds(span, target)}
            show(rung, len(settled), 0, 1)
            if policy.refine is not None:
                rest = {i: span for i, span in tried.items() if i not in settled}
                config = replace(policy.refine, target=target)
                on_step = functools.partial(show, rung, len(settled))
                for i, refined in self.refined(rest, ids, config, on_step=on_step):
                    if holds(refined, target):
                        settled[i] = refined
                        on_settled(so_far())
        return so_far()

    def _spend(
        self, cut: Sequence[Span], policy: FidelityPolicy, budget: int, report: OnProgress
    ) -> list[Span]:
        """The best spans for a number of positions, refined afterwards if asked for."""
        offers: list[list[Span]] = [[] for _ in cut]
        for step, ratio in enumerate(policy.ladder):
            for own, span in zip(offers, self.compressor.encode(cut, ratio=ratio), strict=True):
                own.append(span)
            report(len(cut) * step // len(policy.ladder), len(cut))
        for own, span in zip(offers, cut, strict=True):
            own.append(span)
        cap = 1.0 if policy.min_fidelity is None else policy.min_fidelity
        words = [words_of(self.compressor.tokenizer, span.verbatim_ids) for span in cut]
        chosen = spend(offers, budget, enough=cap, words=words)
        slots = {i: span for i, span in enumerate(chosen) if span.kind != "tokens"}
        ids = {i: cut[i].verbatim_ids for i in slots}
        found = dict(self._checked(slots, ids))
        if policy.refine is not None:
            short = {i: span for i, span in found.items() if not holds(span, cap)}
            found |= self.refined(short, ids, replace(policy.refine, target=cap), on_step=report)
        return [found.get(i, span) for i, span in enumerate(chosen)]

    def refined(
        self,
        spans: Mapping[int, Span],
        ids: Mapping[int, TokenIds],
        config: RefineConfig,
        *,
        on_step: OnProgress = _silent,
    ) -> Iterator[tuple[int, Span]]:
        """Refine spans of slots, and see which are then written back without an error.

        Spans and their token ids are given by index; after each step `on_step` gets (steps
        taken or saved, most steps).

        Yields:
            (index, refined span), about in the order in which they finish.
        """
        indices = list(spans)
        tasks = [RefineTask(token_ids=ids[i], payload=readable(spans[i])) for i in indices]
        form, teach = self.compressor.runtime.form, self.teachers.write
        unchecked: dict[int, Span] = {}
        for position, result in refine(form, tasks, config, teach=teach, on_step=on_step):
            i = indices[position]
            unchecked[i] = replace(
                spans[i],
                payload=result.payload,
                fidelity=result.token_fidelity.share,
                token_fidelity=result.token_fidelity,
                recall=None,  # what was measured was that of the slots before
                refine_steps=spans[i].refine_steps + result.steps,
                refine_seconds=spans[i].refine_seconds + result.seconds,
            )
            if len(unchecked) == CHECKED_AT_ONCE:
                yield from self._checked(unchecked, ids)
                unchecked = {}
        yield from self._checked(unchecked, ids)

    def improved(
        self, memory: Memory, config: RefineConfig, *, on_step: OnProgress = _silent
    ) -> Iterator[Memory]:
        """Refine the slots of the spans of a memory that fall short of `config.target`.

        The memory is its own checkpoint: a span that has the fidelity is not touched, so a run
        that was stopped goes on where it left off.

        Yields:
            The memory after each span that is done, so that it can be saved; where its recall was
            known, at last with that of the new slots.

        Raises:
            InputError: If the text of a weak span was not kept.
        """
        originals = original_ids(self.compressor.tokenizer, memory)
        asked = memory.recall is not None
        spans = {i: memory.spans[i] for i in weak_spans(memory, config.target)}
        ids = {}
        for i, span in spans.items():
            document = memory.document_of[i]
            if document not in originals:
                raise InputError(
                    "Only a memory that keeps its text can be refined.",
                    got=f"no text for the document {memory.documents[document].name!r}",
                    expected="the text that the slots stand for",
                    fix="Compress the document again without --no-source.",
                )
            ids[i] = originals[document][span.token_start : span.token_end]
        for i, better in self.refined(spans, ids, config, on_step=on_step):
            memory = with_spans(memory, {i: better})
            yield memory
        if asked and spans:
            yield self.compressor.with_recall(memory, originals)

    def _checked(
        self, spans: Mapping[int, Span], ids: Mapping[int, TokenIds]
    ) -> Iterator[tuple[int, Span]]:
        tried = self.compressor.written_back(list(spans.values()), [ids[i] for i in spans])
        return zip(spans, tried, strict=True)


def holds(span: Span, target: float) -> bool:
    """Whether a span of slots is known to have a fidelity (0..1).

    Where the fidelity leaves room for no wrong token, teacher forcing is not enough: the
    decoder must have written the span back freely.
    """
    if needs_every_token(span.tokens, target):
        return span.written_back is True
    return span.fidelity is not None and span.fidelity >= target


def weak_spans(memory: Memory, target: float) -> list[int]:
    """Indices of the slot spans of which it is not known that they have a fidelity (0..1)."""
    spans = enumerate(memory.spans)
    return [i for i, span in spans if span.kind != "tokens" and not holds(span, target)]
