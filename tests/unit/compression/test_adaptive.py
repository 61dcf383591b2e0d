"""Adaptive compression: each span at the cheapest price that holds it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from icae.compression.adaptive import AdaptiveCompressor, FidelityPolicy, weak_spans
from icae.compression.refinement import RefineConfig
from icae.compression.spending import spend, words_of
from icae.compression.teachers import TeacherWriter
from icae.config.spans import needs_every_token
from icae.errors import ConfigError, InputError
from icae.memory import Embeddings, Span, TokenFidelity

TEXT = "The quick brown fox jumps over the lazy dog, 17 times in a row. " * 2


@pytest.fixture
def adaptive(engine: Any) -> AdaptiveCompressor:
    writer = TeacherWriter(
        decoder=engine.runtime.model.decoder, tokenizer=engine.tokenizer, length=4
    )
    return AdaptiveCompressor(compressor=engine.compressor, teachers=writer)


def make(adaptive: AdaptiveCompressor, **policy: Any) -> Any:
    text = adaptive.compressor.tokenize(TEXT)
    return adaptive.compress(text, policy=FidelityPolicy(**policy), name="t")


def offer(tokens: int, positions: int, held: int) -> Span:
    reproduced = np.arange(tokens) < held
    fidelity = TokenFidelity.of_probabilities(reproduced, reproduced.astype(np.float32))
    return Span(
        token_start=0,
        token_end=tokens,
        char_start=0,
        char_end=0,
        payload=Embeddings(slots_KD=np.zeros((positions, 2), dtype=np.float32)),
        ratio=tokens / positions,
        fidelity=fidelity.share,
        token_fidelity=fidelity,
    )


def test_spans_that_nothing_holds_stay_verbatim(adaptive: AdaptiveCompressor, engine: Any) -> None:
    memory = make(adaptive, min_fidelity=1.0)
    assert {span.kind for span in memory.spans} == {"tokens"}
    assert memory.fidelity == 1.0
    assert "".join(r.text for r in engine.reconstruct(memory)) == TEXT


def test_span_takes_the_highest_ratio_that_is_enough(
    adaptive: AdaptiveCompressor, engine: Any
) -> None:
    memory = make(adaptive, min_fidelity=0.1, ratios=(2.0, 4.0))
    at = {ratio: engine.compress(TEXT, ratio=ratio).spans for ratio in (4.0, 2.0)}
    for i, span in enumerate(memory.spans):
        assert span.fidelity >= 0.1
        enough = [ratio for ratio in (4.0, 2.0) if at[ratio][i].fidelity >= 0.1]
        assert span.ratio == (enough[0] if enough else 1.0)


@pytest.fixture
def faultless(adaptive: AdaptiveCompressor, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Teacher forcing finds every token; writing back freely does so while this says True."""
    runtime, exact, written = adaptive.compressor.runtime, [True], {}

    def fidelity(payloads: Any, spans: Any) -> Any:
        pairs = zip(payloads, spans, strict=True)
        written.update({own.slots_KD.tobytes(): ids for own, ids in pairs})
        return [TokenFidelity.of_verbatim(len(ids)) for ids in spans]

    def write_back(prefixes: Any) -> Any:
        true = [written[prefix.parts[0].slots_KD.tobytes()] for prefix in prefixes]
        return [tuple(ids.tolist() if exact[0] else [0, *ids.tolist()[1:]]) for ids in true]

    monkeypatch.setattr(runtime, "fidelity", fidelity)
    monkeypatch.setattr(runtime, "write_back", write_back)
    return exact


@pytest.mark.parametrize("goal", [0.99, 1.0])
def test_span_without_room_for_an_error_must_be_written_back_freely(
    adaptive: AdaptiveCompressor, faultless: list[bool], goal: float
) -> None:
    kept = make(adaptive, min_fidelity=goal, ratios=(4.0,))
    assert [span.written_back for span in kept.spans] == [True] * len(kept.spans)
    assert all(span.is_exact for span in kept.spans)
    faultless[0] = False
    drifting = make(adaptive, min_fidelity=goal, ratios=(4.0,))
    assert {span.kind for span in drifting.spans} == {"tokens"}


def test_span_with_room_for_an_error_is_kept_and_its_drift_recorded(
    adaptive: AdaptiveCompressor, faultless: list[bool]
) -> None:
    faultless[0] = False
    memory = make(adaptive, min_fidelity=0.5, ratios=(4.0,))
    assert {span.kind for span in memory.spans} == {"slots"}
    assert {span.written_back for span in memory.spans} == {False}
    assert not any(span.is_exact for span in memory.spans)
    assert weak_spans(memory, 0.5) == []
    assert weak_spans(memory, 1.0) == list(range(len(memory.spans)))


@pytest.mark.parametrize(
    ("tokens", "fidelity", "needed"),
    [(32, 0.98, True), (32, 0.96, False), (4, 0.8, True), (4, 0.75, False), (1, 0.1, True)],
)
def test_fidelity_that_leaves_room_for_no_error_needs_every_token(
    tokens: int, fidelity: float, needed: bool
) -> None:
    assert needs_every_token(tokens, fidelity) is needed


def test_work_that_was_stopped_goes_on_from_the_memory_it_left(
    adaptive: AdaptiveCompressor, faultless: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = adaptive.compressor.tokenize(TEXT)
    policy = FidelityPolicy(min_fidelity=1.0, ratios=(4.0,), refine=RefineConfig())
    drifting, left = 2, []

    def refined(self: AdaptiveCompressor, spans: Any, ids: Any, config: Any, **more: Any) -> Any:
        seen.append(sorted(spans))
        for i, span in spans.items():
            yield i, replace(span, refine_steps=3, written_back=i != drifting)

    seen: list[list[int]] = []
    monkeypatch.setattr(AdaptiveCompressor, "refined", refined)
    faultless[0] = False
    whole = adaptive.compress(
        text, policy=policy, name="t", on_settled=lambda make: left.append(make())
    )
    first = left[0]
    assert [span.kind for span in first.spans].count("slots") == 1
    assert first.tokens == whole.tokens
    again = adaptive.compress(text, policy=policy, name="t", start=first)
    assert seen == [list(range(len(whole.spans))), list(range(1, len(whole.spans)))]
    assert again == whole
    assert whole.spans[drifting].kind == "tokens"
    other = adaptive.compressor.tokenize(TEXT[:-9])
    with pytest.raises(InputError, match="another text"):
        adaptive.compress(other, policy=policy, name="t", start=first)


def test_progress_only_grows_and_ends_at_the_whole(adaptive: AdaptiveCompressor) -> None:
    seen: list[float] = []
    policy = FidelityPolicy(
        min_fidelity=0.6, ratios=(2.0, 4.0), refine=RefineConfig(steps=4, kl_weight=0.0)
    )
    text = adaptive.compressor.tokenize(TEXT)
    adaptive.compress(
        text, policy=policy, name="t", on_progress=lambda done, total: seen.append(done / total)
    )
    assert seen == sorted(seen)
    assert len({round(share, 3) for share in seen}) > 4
    assert seen[-1] == 1.0


def test_refinement_is_tried_before_verbatim(adaptive: AdaptiveCompressor) -> None:
    refine = RefineConfig(steps=60, kl_weight=0.0)
    plain = make(adaptive, min_fidelity=0.6, ratios=(2.0,))
    refined = make(adaptive, min_fidelity=0.6, ratios=(2.0,), refine=refine)
    assert refined.positions < plain.positions
    assert any(span.refine_steps for span in refined.spans)
    assert all(span.fidelity >= 0.6 for span in refined.spans)


def test_budget_is_never_exceeded_and_more_holds_more(adaptive: AdaptiveCompressor) -> None:
    tokens = len(adaptive.compressor.tokenize(TEXT).ids)
    held = []
    for budget in (tokens // 2, tokens):
        memory = make(adaptive, budget=budget)
        assert memory.positions <= budget
        held.append(memory.fidelity)
    assert held[0] < held[1] == 1.0
    with pytest.raises(InputError, match="budget") as caught:
        make(adaptive, budget=1, ratios=(2.0,))
    needed = int(caught.value.expected.rsplit(" ", 1)[1])
    assert make(adaptive, budget=needed, ratios=(2.0,)).positions == needed


def test_budget_goes_where_it_holds_most_and_not_beyond_enough() -> None:
    offers = [[offer(8, 2, 1), offer(8, 4, 8)], [offer(8, 2, 6), offer(8, 4, 7)]]
    assert [span.slots for span in spend(offers, 6, enough=1.0)] == [4, 2]
    assert [span.slots for span in spend(offers[1:], 100, enough=0.75)] == [2]


def test_greedy_choice_is_within_one_upgrade_of_the_best() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        offers = [
            [
                offer(8, k, int(h))
                for k, h in zip((1, 2, 4, 8), sorted(rng.integers(0, 9, 4)), strict=True)
            ]
            for _ in range(4)
        ]
        budget = int(rng.integers(4, 32))

        def held(choice: Any) -> float:
            return sum(8 * s.token_fidelity.share for s in choice)

        best = max(
            held(choice)
            for choice in itertools.product(*offers)
            if sum(s.positions for s in choice) <= budget
        )
        chosen = spend(offers, budget, enough=1.0)
        assert sum(s.positions for s in chosen) <= budget
        assert held(chosen) >= best - 8


@pytest.mark.parametrize(
    "wrong",
    [{}, {"min_fidelity": 0.0}, {"min_fidelity": 1.5}, {"budget": 0}, {"budget": 5, "ratios": ()}],
)
def test_policies_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FidelityPolicy(**wrong)


def test_refining_a_memory_improves_weak_spans_and_leaves_the_rest(
    adaptive: AdaptiveCompressor, engine: Any
) -> None:
    memory = engine.compress(TEXT, ratio=2)
    config = RefineConfig(steps=60, target=0.6, kl_weight=0.0)
    weak = weak_spans(memory, 0.6)
    *_, last = adaptive.improved(memory, config)
    assert last.fidelity > memory.fidelity
    for i, (before, after) in enumerate(zip(memory.spans, last.spans, strict=True)):
        assert (before.payload == after.payload) == (i not in weak)
        assert (after.refine_steps > 0) == (i in weak)
    assert list(adaptive.improved(last, config)) == [] or weak_spans(last, 0.6)
    with pytest.raises(InputError, match="keeps its text"):
        next(adaptive.improved(memory.without_source(), RefineConfig(target=1.0)))


def test_a_budget_goes_to_lost_numbers_before_other_tokens(tokenizer: Any) -> None:
    prose = [offer(12, 3, 4), offer(12, 12, 12)]  # eight tokens to gain
    figures = [offer(12, 3, 10), offer(12, 12, 12)]  # two, which are digits
    ids = tokenizer("room aa 4213", add_special_tokens=False)["input_ids"]
    ((worth, own),) = words_of(tokenizer, np.array(ids))
    assert tokenizer.decode(ids[own]).strip() == "4213"
    words = [[], [(worth, slice(8, 12))]]

    assert [s.positions for s in spend([prose, figures], 15, enough=1.0)] == [12, 3]
    chosen = spend([prose, figures], 15, enough=1.0, words=words)
    assert [s.positions for s in chosen] == [3, 12]
    # What is held well enough already buys nothing.
    assert [s.positions for s in spend([prose, figures], 15, enough=0.8, words=words)] == [12, 3]
