from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icae.config.types import POSITION_LAYOUTS
from icae.decode.batching import (
    POSITIONS_PER_BATCH,
    ROWS_PER_BATCH,
    most_places,
    row_batches,
    span_batches,
)
from icae.decode.prefix import Prefix, Request
from icae.decode.torch import TorchRuntime
from icae.memory import Embeddings, Verbatim
from icae.model.around import layers_of
from mixed_prefix import mixed_prefix

SPANS = ((16, 4), (9, 3))


@pytest.fixture
def build_prefix(random_ids: Callable[..., Any]) -> Callable[..., Prefix]:
    """Real slots of random spans."""

    def build(
        runtime: TorchRuntime, spans: Any = SPANS, *, objective: Any = "ft", seed: int = 0
    ) -> Prefix:
        ids = [random_ids(tokens, seed + i) for i, (tokens, _) in enumerate(spans)]
        parts = tuple(runtime.encode(ids, [k for _, k in spans]))
        return Prefix(parts=parts, spans=tuple(spans), objective=objective)

    return build


class ByHand:
    """Decoder inputs of each kind of part, without a runtime."""

    def __init__(self, embed: Any) -> None:
        self.embed = embed

    def read_slots(self, slots_KD: Any) -> torch.Tensor:
        return torch.from_numpy(slots_KD)

    def read_tokens(self, token_ids: Any) -> torch.Tensor:
        return self.embed(torch.from_numpy(token_ids))  # type: ignore[no-any-return]


def naive(
    model: Any, prefix: Prefix | None, prompt: Any, positions: list[int], n: int
) -> list[int]:
    """Greedy decoding that reads everything again for each token, masked by hand."""
    embed = model.decoder.get_input_embeddings()
    head = []
    if prefix is not None:
        marker = model.tokens.objective(prefix.objective)
        head = [*(part.read_by(ByHand(embed)) for part in prefix.parts), marker]
    written: list[int] = []
    with torch.no_grad():
        for _ in range(n):
            row = torch.cat([*head, embed(torch.tensor([*prompt, *written], dtype=torch.long))])
            size = len(row)
            logits = model.decoder(
                inputs_embeds=row[None],
                position_ids=torch.tensor([positions[:size]]),
                attention_mask=torch.full((size, size), -torch.inf).triu(1)[None, None],
                use_cache=False,
            ).logits
            written.append(int(logits[0, -1].argmax()))
    return written


@pytest.mark.parametrize("layout", POSITION_LAYOUTS)
def test_greedy_decoding_equals_a_loop_without_cache(
    family: str, build_model: Any, build_prefix: Any, random_ids: Any, layout: str
) -> None:
    model = build_model(family, layout=layout)
    runtime, prompt, plain = TorchRuntime(model), random_ids(5, 7), list(range(60))
    verbatim = Prefix(parts=(Verbatim(ids=random_ids(7)),), spans=((7, 7),), objective="ft")
    # Slots at the chunk centres of 16 and 9 tokens, the objective token behind them at 25;
    # verbatim tokens between them at their own places, 16 to 21.
    for prefix, size, uniform in (
        (build_prefix(runtime), 7 + 1, [1, 5, 9, 13, 17, 20, 23, *range(25, 60)]),
        (
            mixed_prefix(runtime, random_ids),
            13 + 1,
            [1, 5, 9, 13, *range(16, 22), 23, 26, 29, *range(31, 60)],
        ),
        (verbatim, 7 + 1, plain),
        (None, 0, plain),
    ):
        positions = uniform if layout == "uniform" else plain
        made = runtime.generate(prefix, prompt, max_new_tokens=6, stop_ids=())
        assert list(made.token_ids) == naive(model, prefix, prompt, positions, 6)
        assert made.positions == size + 5
        assert not made.stopped
        assert 0 < made.first_token_seconds <= made.seconds


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(
    build_model: Any, build_prefix: Any, random_ids: Any
) -> None:
    runtime = TorchRuntime(build_model())
    prefix, prompt = build_prefix(runtime), random_ids(5)
    free = runtime.generate(prefix, prompt, max_new_tokens=8, stop_ids=()).token_ids
    stop = free[-1]
    end = free.index(stop)
    seen: list[int] = []

    made = runtime.generate(
        prefix, prompt, max_new_tokens=8, stop_ids=[stop, 287], on_token=seen.append
    )

    assert made.stopped
    assert made.token_ids == free[:end]
    assert tuple(seen) == free[:end]


def test_the_objective_token_steers_the_answer(build_model: Any, build_prefix: Any) -> None:
    runtime = TorchRuntime(build_model())
    prompt = np.array([], dtype=np.int64)
    answers = {
        runtime.generate(
            build_prefix(runtime, objective=objective), prompt, max_new_tokens=6, stop_ids=()
        ).token_ids
        for objective in ("ae", "ft")
    }

    assert len(answers) == 2


@pytest.mark.parametrize("layout", POSITION_LAYOUTS)
def test_writing_back_together_equals_one_by_one(
    build_model: Any, build_prefix: Any, layout: str
) -> None:
    runtime = TorchRuntime(build_model(layout=layout))
    shapes = [(16, 4), (5, 2), (16, 4), (16, 8), (5, 2), (1, 1)]
    prefixes = [
        build_prefix(runtime, [shape], objective="ae", seed=i) for i, shape in enumerate(shapes)
    ]

    together = runtime.write_back(prefixes)

    assert [len(ids) for ids in together] == [16, 5, 16, 16, 5, 1]
    assert together == [runtime.write_back([prefix])[0] for prefix in prefixes]
    empty = np.array([], dtype=np.int64)
    for prefix, ids in zip(prefixes, together, strict=True):
        made = runtime.generate(prefix, empty, max_new_tokens=len(ids), stop_ids=())
        assert made.token_ids == ids


@given(lengths=st.lists(st.integers(1, 3000), max_size=60))
def test_batches_cover_all_spans_in_order_and_stay_within_the_bound(lengths: list[int]) -> None:
    parts = list(span_batches(lengths, bound=TorchRuntime.span_tokens))

    covered = [i for part in parts for i in range(len(lengths))[part]]
    assert covered == list(range(len(lengths)))
    for part in parts:
        members = lengths[part]
        assert len(members) == 1 or max(members) * len(members) <= TorchRuntime.span_tokens
    assert list(span_batches([128] * 9, bound=512)) == [slice(0, 4), slice(4, 8), slice(8, 9)]


def test_kv_bytes_match_hand_computed_ones(build_model: Any, build_decoder: Any) -> None:
    # Keys and values, 2 layers, 2 key-value heads of width 8, 4 bytes: 256 a position.
    assert TorchRuntime(build_model()).kv_bytes(10) == 2560
    half = build_model(decoder=build_decoder().bfloat16())
    assert TorchRuntime(half).kv_bytes(10) == 1280
    # GPT-NeoX has no grouped heads: 4 heads of width 8.
    assert TorchRuntime(build_model("gpt-neox")).kv_bytes(1) == 512


def test_fidelity_tells_of_each_token_what_teacher_forcing_makes_of_it(
    build_model: Any, random_ids: Any
) -> None:
    model = build_model()
    runtime = TorchRuntime(model)
    spans = [random_ids(8), random_ids(3, 1)]
    slots = runtime.encode(spans, [4, 1])

    measured = runtime.fidelity(slots, spans)

    for ids, memory, fidelity in zip(spans, slots, measured, strict=True):
        prefix = Prefix.of_payload(memory, tokens=len(ids), objective="ae")
        hits, probabilities = [], []
        for i in range(len(ids)):
            best = runtime.generate(prefix, ids[:i], max_new_tokens=1, stop_ids=()).token_ids
            hits.append(best == (ids[i],))
            head = torch.cat([runtime.form.inputs(prefix), runtime.read_tokens(ids[:i])])
            with torch.no_grad():
                logits = model.decoder(inputs_embeds=head[None]).logits[0, -1]
            probabilities.append(float(logits.softmax(dim=-1)[ids[i]]))
        assert fidelity.reproduced.tolist() == hits
        assert fidelity.share == sum(hits) / len(hits)
        np.testing.assert_allclose(fidelity.probabilities, probabilities, atol=0.5 / 255 + 1e-4)


def test_a_span_written_back_is_reproduced_in_full(build_model: Any, random_ids: Any) -> None:
    model = build_model()
    runtime = TorchRuntime(model)
    slots = runtime.encode([random_ids(8)], [4])
    prefix = Prefix.of_payload(slots[0], tokens=8, objective="ae")
    written = np.array(runtime.write_back([prefix])[0])

    # What greedy decoding writes is what teacher forcing on it finds most likely.
    assert runtime.fidelity(slots, [written])[0].share == 1.0


def build_requests(build_prefix: Any, runtime: TorchRuntime, random_ids: Any) -> list[Request]:
    """Two memories, one of them asked three times, and two prompts without a memory."""
    shared, alone = build_prefix(runtime), build_prefix(runtime, [(5, 2)], seed=3)
    prefixes = [shared, None, alone, shared, None, shared]
    return [
        Request(prefix=prefix, prompt_ids=random_ids(3 + 2 * i, 20 + i))
        for i, prefix in enumerate(prefixes)
    ]


@pytest.mark.parametrize("layout", POSITION_LAYOUTS)
def test_answers_written_together_equal_those_written_one_by_one(
    family: str, build_model: Any, build_prefix: Any, random_ids: Any, layout: str
) -> None:
    runtime = TorchRuntime(build_model(family, layout=layout))
    requests = build_requests(build_prefix, runtime, random_ids)
    free = [
        runtime.generate(r.prefix, r.prompt_ids, max_new_tokens=8, stop_ids=()).token_ids
        for r in requests
    ]
    stops = [free[0][2], free[3][5]]

    for stop_ids in ((), stops):
        together = runtime.generate_many(requests, max_new_tokens=8, stop_ids=stop_ids)
        for request, made in zip(requests, together, strict=True):
            alone = runtime.generate(
                request.prefix, request.prompt_ids, max_new_tokens=8, stop_ids=stop_ids
            )
            assert made.token_ids == alone.token_ids
            assert (made.stopped, made.positions) == (alone.stopped, alone.positions)
            assert 0 < made.first_token_seconds <= made.seconds
    assert len({made.token_ids for made in together}) > 1
    assert any(made.stopped for made in together)


def test_a_row_that_ended_is_not_computed_any_more(
    build_model: Any, build_prefix: Any, random_ids: Any
) -> None:
    runtime = TorchRuntime(build_model())
    requests = build_requests(build_prefix, runtime, random_ids)
    first = runtime.generate_many(requests[:1], max_new_tokens=1, stop_ids=())[0].token_ids[0]
    rows: list[int] = []
    hook = layers_of(runtime.model.decoder)[0].register_forward_pre_hook(
        lambda module, args: rows.append(args[0].shape[0])
    )

    made = runtime.generate_many(requests, max_new_tokens=4, stop_ids=[first])
    hook.remove()

    ended = sum(m.stopped and not m.token_ids for m in made)
    assert ended >= 1
    assert rows[:3] == [1, 6, 6 - ended]  # the shared memory, then all rows, then the rest


def test_a_sliding_window_batches_only_rows_of_one_length(
    build_model: Any, build_decoder: Any, build_prefix: Any, random_ids: Any
) -> None:
    decoder = build_decoder("mistral")
    decoder.config.sliding_window = 6
    runtime = TorchRuntime(build_model(decoder=decoder))
    requests = build_requests(build_prefix, runtime, random_ids)

    together = runtime.generate_many(requests, max_new_tokens=8, stop_ids=())

    for request, made in zip(requests, together, strict=True):
        alone = runtime.generate(request.prefix, request.prompt_ids, max_new_tokens=8, stop_ids=())
        assert made.token_ids == alone.token_ids


@given(
    sizes=st.lists(st.integers(1, 9000), max_size=60),
    pads=st.booleans(),
)
def test_row_batches_hold_every_request_once_and_stay_within_the_bounds(
    sizes: list[int], pads: bool
) -> None:
    requests = [Request(prefix=None, prompt_ids=np.zeros(n, dtype=np.int64)) for n in sizes]

    batches = list(row_batches(requests, sizes, pads=pads))

    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    for batch in batches:
        own = [sizes[i] for i in batch]
        assert len(own) <= ROWS_PER_BATCH
        assert len(own) == 1 or max(own) * len(own) <= POSITIONS_PER_BATCH
        assert pads or len(set(own)) == 1


def test_two_prefixes_have_one_digest_exactly_if_the_decoder_reads_the_same(
    random_ids: Any,
) -> None:
    slots = np.arange(12, dtype=np.float32).reshape(3, 4)

    def prefix(slots: Any, tokens: int = 9, objective: Any = "ft") -> Prefix:
        own = Embeddings(slots_KD=slots)
        return Prefix.of_payload(own, tokens=tokens, objective=objective)

    one = prefix(slots)

    assert one.digest == prefix(slots.copy()).digest
    others = [
        prefix(slots + 1),
        prefix(slots, tokens=8),
        prefix(slots, objective="ae"),
        Prefix(parts=(Verbatim(ids=random_ids(3)),), spans=((9, 3),), objective="ft"),
    ]
    assert len({own.digest for own in [one, *others]}) == 5


def test_most_places_are_those_at_the_worst_time_until_all_rows_have_ended() -> None:
    rows = [(10, 4), (2, 100), (30, 1)]  # places now, tokens left
    each = [[now + t for now, left in rows if left >= t] for t in range(101)]
    assert most_places(rows, pads=True) == max(len(at) * max(at) for at in each)
    assert most_places(rows, pads=False) == max(map(sum, each))
    assert most_places([], pads=True) == 0
