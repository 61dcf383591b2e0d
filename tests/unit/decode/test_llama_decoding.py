"""Continuous batching in llama.cpp against answers written alone; `make test-llamacpp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from icae.decode.batching import POSITIONS_PER_BATCH
from icae.decode.prefix import Prefix, Request
from icae.decode.sampling import Sampler, Sampling
from icae.errors import InputError
from icae.memory import KeyValueSlots

pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed; `make test-llamacpp` installs it"
)

from icae.decode import llama_decoding
from icae.decode.llama_decoding import LlamaDecoding
from icae.decode.llamacpp.context import LlamaContext
from icae.decode.torch_decoding import TorchDecoding

LIMITS = [9, 2, 6, 12, 4]
AROUND = {"framing": "around", "objective_tokens": 3}
KEY_VALUES = {**AROUND, "memory": "key-values", "framing": "between"}


@pytest.fixture
def both(build_both: Any, request: pytest.FixtureRequest) -> Any:
    """torch and llama.cpp on one tiny model, memories of one form."""
    return build_both(**getattr(request, "param", KEY_VALUES))


@pytest.fixture
def asked(both: Any, random_ids: Callable[..., Any]) -> list[Request]:
    """Two questions about one memory, one about another, and two prompts alone."""
    spans = [random_ids(length, length) for length in (21, 9)]
    prefixes = [
        Prefix.of_payload(payload, tokens=len(ids), objective="ft")
        for payload, ids in zip(both[0].encode(spans, [6, 3]), spans, strict=True)
    ]
    behind = [prefixes[0], prefixes[0], prefixes[1], None, None]
    return [
        Request(prefix=prefix, prompt_ids=random_ids(n, n))
        for prefix, n in zip(behind, (4, 7, 5, 3, 33), strict=True)
    ]


def alone(runtime: Any, request: Request, limit: int) -> list[int]:
    made = runtime.generate(request.prefix, request.prompt_ids, max_new_tokens=limit, stop_ids=[])
    return list(made.token_ids)


def written(decoding: Any, requests: dict[int, Any], samplers: Any = None) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = {key: [] for key in requests}
    step = decoding.join(requests, samplers)
    while True:
        for key, token in step.items():
            tokens[key].append(token)
        if not decoding:
            return tokens
        step = decoding.step()


@pytest.mark.parametrize("both", [AROUND, KEY_VALUES], indirect=True)
def test_an_answer_that_joins_others_midway_is_the_one_it_gets_alone(
    both: Any, asked: list[Request], joined_midway: Callable[..., Any]
) -> None:
    torch_runtime, llama = both
    decoding = LlamaDecoding(llama, [], kept_bytes=10**6)
    found = joined_midway(decoding, asked, LIMITS)
    for i, request in enumerate(asked):
        assert found[i] == alone(torch_runtime, request, LIMITS[i]), i
        assert found[i] == alone(llama, request, LIMITS[i]), i


def test_a_row_that_is_given_up_and_a_stop_token_leave_the_others_as_they_are(
    both: Any, asked: list[Request]
) -> None:
    torch_runtime, llama = both
    expected = [alone(torch_runtime, request, 8) for request in asked]
    stop = next(token for token in expected[2] if token not in sum(expected[3:], expected[1]))
    decoding = LlamaDecoding(llama, [stop], kept_bytes=0)
    found: dict[int, list[int]] = {i: [] for i in range(len(asked))}

    step = decoding.join({i: (request, 8) for i, request in enumerate(asked)})
    for turn in range(9):
        for row, token in step.items():
            found[row].append(token)
        if turn == 2:
            decoding.leave([0, 99])
        step = decoding.step() if decoding else {}
    assert found[0] == expected[0][:2]
    assert found[2] == expected[2][: expected[2].index(stop) + 1]
    assert [found[i] for i in (1, 3, 4)] == [expected[i] for i in (1, 3, 4)]


@pytest.mark.parametrize("both", [AROUND, KEY_VALUES], indirect=True)
def test_the_tokens_that_prompts_begin_with_are_read_with_the_memory(
    both: Any, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_runtime, llama = both
    prompt_ids = asked[3].prompt_ids
    head = np.append(asked[1].prompt_ids[:4], asked[2].prompt_ids[:1])
    requests = dict(enumerate((*asked, Request(prefix=asked[0].prefix, prompt_ids=prompt_ids[:0]))))
    decoding = LlamaDecoding(llama, [], kept_bytes=10**6, head=head)
    read: list[int] = []
    read_rows = LlamaContext.read_rows

    def noting(context: Any, tokens: Any, *rest: Any, **options: Any) -> None:
        read.append(len(tokens))
        read_rows(context, tokens, *rest, **options)

    monkeypatch.setattr(LlamaContext, "read_rows", noting)
    found = written(decoding, {key: (request, 5) for key, request in requests.items()})
    assert found == {key: alone(torch_runtime, own, 5) for key, own in requests.items()}
    assert read[0] == 4 + (7 - 4) + 5 + 3 + 33 + 1


def test_a_memory_is_read_once_and_within_the_bytes_that_are_kept(
    both: Any, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_runtime, llama = both
    read: list[int] = []
    read_runs = llama_decoding.read_runs

    def noting(*given: Any, end: int | None = None, **options: Any) -> int:
        read.append(1)
        return read_runs(*given, end=end, **options)

    monkeypatch.setattr(llama_decoding, "read_runs", noting)
    several = {i: (request, 5) for i, request in enumerate(asked)}
    expected = {i: alone(torch_runtime, request, 5) for i, request in enumerate(asked)}
    decoding = LlamaDecoding(llama, [], kept_bytes=10**6)
    assert [written(decoding, several) for _ in range(2)] == [expected] * 2
    assert len(read) == 2
    assert 0 < decoding.fronts.bytes < 10**6

    read.clear()
    decoding = LlamaDecoding(llama, [], kept_bytes=10)
    assert [written(decoding, several) for _ in range(2)] == [expected] * 2
    assert len(read) == 4


def test_tokens_are_drawn_and_noted_as_in_torch(both: Any, asked: list[Request]) -> None:
    torch_runtime, llama = both
    settings = [
        Sampling(top_logprobs=2),
        Sampling(temperature=0.8, top_p=0.9, seed=5, top_logprobs=0),
        Sampling(frequency_penalty=1.5, logit_bias={3: 2.0}),
    ]

    def drawn(decoding: Any) -> Any:
        samplers = {i: Sampler(sampling) for i, sampling in enumerate(settings)}
        requests = {i: (asked[i], 6) for i in samplers}
        return written(decoding, requests, samplers), [s.noted for s in samplers.values()]

    tokens, noted = drawn(LlamaDecoding(llama, [], kept_bytes=10**6))
    wanted, expected = drawn(TorchDecoding(torch_runtime, [], kept_bytes=10**6))
    assert tokens == wanted
    assert [len(one) for one in noted] == [6, 6, 0]
    for own, other in zip(noted[0], expected[0], strict=True):
        assert own.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert [token for token, _ in own.top] == [token for token, _ in other.top]


def test_no_more_join_than_there_is_room_for_and_the_cache_grows_for_one(
    both: Any, asked: list[Request]
) -> None:
    torch_runtime, llama = both
    decoding, big = LlamaDecoding(llama, [], kept_bytes=0), POSITIONS_PER_BATCH // 2
    assert decoding.joinable([(asked[4], 10 * POSITIONS_PER_BATCH)] * 2) == 1
    assert decoding.joinable([(asked[4], big), (asked[4], big)]) == 1
    assert decoding.joinable([(asked[4], 3)] * 99) == llama_decoding.TOGETHER
    decoding.join({0: (asked[4], big)})
    assert decoding.joinable([(asked[4], big)]) == 0
    assert decoding.joinable([(asked[0], 3), (asked[4], big)]) == 1
    decoding.leave([0])
    decoding.join({0: (asked[2], POSITIONS_PER_BATCH + 100)})
    decoding.leave([0])
    assert written(decoding, {0: (asked[2], 6)}) == {0: alone(torch_runtime, asked[2], 6)}


def test_many_answers_that_come_and_go_find_places(both: Any, asked: list[Request]) -> None:
    torch_runtime, llama = both
    decoding = LlamaDecoding(llama, [], kept_bytes=10**6)
    expected = [alone(torch_runtime, request, 40) for request in asked]
    found: dict[int, list[int]] = {}
    for key in range(120):
        for step in (decoding.join({key: (asked[key % 5], 5 + key % 36)}), decoding.step()):
            for row, token in step.items():
                found.setdefault(row, []).append(token)
        decoding.leave([key - 20])
    assert all(expected[key % 5][: len(own)] == own for key, own in found.items())
    assert {len(own) for own in found.values()} >= {5, 12, 20}


def test_a_memory_that_cannot_be_read_takes_nothing_from_the_others(
    both: Any, asked: list[Request]
) -> None:
    torch_runtime, llama = both
    decoding = LlamaDecoding(llama, [], kept_bytes=10**6)
    decoding.join({0: (asked[0], 4)})
    pairs = asked[0].prefix.parts[0].pairs_KY2HW  # type: ignore[union-attr, attr-defined]
    wrong = Prefix.of_payload(KeyValueSlots(pairs_KY2HW=pairs[:, :1]), tokens=6, objective="ft")
    with pytest.raises(InputError, match="not of this base model"):
        decoding.join(
            {1: (asked[3], 4), 2: (Request(prefix=wrong, prompt_ids=asked[3].prompt_ids), 4)}
        )

    tokens: list[int] = []
    while decoding:
        tokens += [decoding.step()[0]]
    assert tokens == alone(torch_runtime, asked[0], 4)
