from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from icae.decode.batching import POSITIONS_PER_BATCH
from icae.decode.kept import Kept
from icae.decode.prefix import Prefix, ReadSoFar, Request
from icae.decode.torch_decoding import TorchDecoding
from icae.decode.torch_kv import LastRead

KEY_VALUES = {"memory": "key-values", "framing": "between", "objective_tokens": 2}
LIMITS = [9, 2, 6, 12, 4]
TEXTS = ("The fox is in the inn.", "A hen ran.", "In the end the other one is near the river.")


@pytest.fixture
def requests(engine: Any, random_ids: Callable[..., Any]) -> list[Request]:
    """Requests with memories of several lengths, one of them twice, and two without."""
    memories = [engine.compress(text) for text in (*TEXTS, TEXTS[0])]
    prompts = [engine.request(m, f"Where is {i}?") for i, m in enumerate(memories)]
    return [*prompts, *(Request(prefix=None, prompt_ids=random_ids(n, n)) for n in (5, 33))]


def alone(engine: Any, request: Request, limit: int) -> list[int]:
    made = engine.runtime.generate(
        request.prefix, request.prompt_ids, max_new_tokens=limit, stop_ids=[]
    )
    return list(made.token_ids)


@pytest.mark.parametrize("build_with", [{}, {"family": "gpt-neox"}, KEY_VALUES])
def test_an_answer_that_joins_others_midway_is_the_one_it_gets_alone(
    build_engine: Callable[..., Any],
    build_with: Any,
    random_ids: Callable[..., Any],
    joined_midway: Callable[..., Any],
) -> None:
    engine = build_engine(**build_with)
    memories = [engine.compress(text) for text in TEXTS]
    asked = [engine.request(m, f"Where is {i}?") for i, m in enumerate(memories)]
    asked += [Request(prefix=None, prompt_ids=random_ids(n, n)) for n in (5, 33)]
    decoding = TorchDecoding(engine.runtime, [], kept_bytes=10**6)
    written = joined_midway(decoding, asked, LIMITS)
    for i, request in enumerate(asked):
        assert written[i] == alone(engine, request, LIMITS[i]), i


def test_a_row_that_is_given_up_leaves_the_others_as_they_are(
    engine: Any, requests: list[Request]
) -> None:
    decoding = TorchDecoding(engine.runtime, [], kept_bytes=0)
    written: dict[int, list[int]] = {i: [] for i in range(len(requests))}

    def take(step: Any) -> None:
        for row, token in step.items():
            written[row].append(token)

    take(decoding.join({i: (request, 8) for i, request in enumerate(requests)}))
    take(decoding.step())
    decoding.leave([0, 5])
    while decoding:
        take(decoding.step())
    for i, request in enumerate(requests):
        expected = alone(engine, request, 8)
        assert written[i] == (expected[:2] if i in (0, 5) else expected)


def test_a_stop_token_ends_a_row(engine: Any, requests: list[Request]) -> None:
    expected = alone(engine, requests[0], 8)
    decoding = TorchDecoding(engine.runtime, [expected[2]], kept_bytes=0)
    tokens = list(decoding.join({7: (requests[0], 8)}).values())
    while decoding:
        tokens += decoding.step().values()
    assert tokens == expected[: expected.index(expected[2]) + 1]


def test_a_memory_that_is_asked_again_is_not_read_again(
    engine: Any, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_prefixes = engine.runtime.read_prefixes

    def noting(prefixes: list[Prefix]) -> Any:
        read.extend(prefix.digest for prefix in prefixes)
        return read_prefixes(prefixes)

    monkeypatch.setattr(engine.runtime, "read_prefixes", noting)
    decoding = TorchDecoding(engine.runtime, [], kept_bytes=10**6)
    for key, request in enumerate([*requests[:4], *requests[:4]]):
        tokens = list(decoding.join({key: (request, 5)}).values())
        while decoding:
            tokens += decoding.step().values()
        assert tokens == alone(engine, request, 5)
    assert len(read) == len(set(read)) == 3


def test_kept_memories_stay_within_their_bytes_and_the_unused_ones_go_first() -> None:
    kept: Kept[str] = Kept(200)
    kept.keep("a", 80, lambda: "A")
    kept.keep("b", 80, lambda: "B")
    assert kept.get("a") is not None
    kept.keep("c", 80, lambda: "C")
    assert kept.get("b") is None
    assert kept.get("a") == "A"
    assert kept.bytes == 160
    kept.keep("d", 201, lambda: pytest.fail("too large: not kept, and nothing breaks"))
    assert kept.get("c") == "C"


def test_no_more_join_than_there_is_room_for(engine: Any, requests: list[Request]) -> None:
    decoding = TorchDecoding(engine.runtime, [], kept_bytes=0)
    big = POSITIONS_PER_BATCH // 2
    assert decoding.joinable([(requests[4], 10 * POSITIONS_PER_BATCH)]) == 1
    assert decoding.joinable([(requests[4], big), (requests[4], big)]) == 1
    assert decoding.joinable([(requests[4], 3)] * 9) == 9
    decoding.join({0: (requests[4], big)})
    assert decoding.joinable([(requests[4], big)]) == 0
    assert (
        decoding.joinable([(requests[4], 3)] * 9) == 9
    )  # they end long before it takes its places
    assert decoding.joinable([(requests[4], 3)], share=0.5) == 0


@pytest.mark.parametrize("build_with", [{}, KEY_VALUES])
def test_the_next_turn_of_an_owner_is_read_from_where_it_differs(
    build_engine: Callable[..., Any], build_with: Any
) -> None:
    engine = build_engine(**build_with)
    memory = engine.compress(TEXTS[0])
    decoding = TorchDecoding(engine.runtime, [], kept_bytes=10**6)
    other = replace(engine.request(memory, "Who ran?"), owner="ben")
    for about in (None, memory):
        first = replace(engine.request(about, "Where is it?"), owner="anna")
        turn = [("Where is it?", "near")]
        second = replace(engine.request(about, "Why?", history=turn), owner="anna")
        written: dict[int, list[int]] = {0: [], 1: [], 2: []}

        def take(step: Any, written: Any = written) -> None:
            for key, token in step.items():
                written[key].append(token)

        take(decoding.join({0: (first, 3), 2: (other, 6)}))
        while 0 in decoding.keys:
            take(decoding.step())
        last = decoding.last(second)
        assert last is not None
        assert decoding.last(replace(second, owner="ann")) is None
        shared = last.read.shared(decoding._read(second))
        assert shared > len(decoding._read(first)) - 3
        begun = decoding._resumed(second)
        assert begun is not None
        assert begun[0][0].shape[2] == shared
        take(decoding.join({1: (second, 5)}))
        while decoding:
            take(decoding.step())
        for key, request in enumerate((first, second, other)):
            assert written[key] == alone(engine, request, (3, 5, 6)[key])


def test_what_an_owner_went_on_from_is_kept_no_longer(engine: Any) -> None:
    def last(size: int) -> LastRead:
        layer = (torch.zeros(1, 1, size, 2), torch.zeros(1, 1, size, 2))
        places = list(range(size))
        return LastRead(
            cache=DynamicCache([layer]), read=ReadSoFar(keys=[*places], positions=places)
        )

    decoding = TorchDecoding(engine.runtime, [], kept_bytes=10**6)
    first, other, longer, moved = last(3), last(4), last(5), last(2)
    for owner, own in (("anna", first), ("ben", other), ("anna", longer)):
        decoding.keep(owner, own)
    assert [own for _, own in decoding.told] == [other, longer]
    decoding.keep("anna", moved, instead=longer)
    assert [own for _, own in decoding.told] == [other, moved]
    assert decoding.told.bytes == sum(2 * size * 2 * 4 for size in (4, 2))
