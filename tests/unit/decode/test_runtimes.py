"""What every runtime does is what torch does, on tiny models."""

from __future__ import annotations

from typing import Any

import pytest

from icae.decode.prefix import Prefix, Request
from icae.errors import InputError
from mixed_prefix import mixed_prefix

AROUND = {"framing": "around", "objective_tokens": 3}
KEY_VALUES = {**AROUND, "memory": "key-values", "framing": "between"}
BEHIND = {**KEY_VALUES, "framing": "behind"}


@pytest.mark.parametrize(
    ("family", "config"),
    [
        *((family, config) for family in ("llama", "qwen2", "mistral") for config in ({}, AROUND)),
        ("gpt-neox", AROUND),
        # The tiny Mistral has a sliding window: keys and values are not for it.
        *((family, config) for family in ("llama", "qwen2") for config in (KEY_VALUES, BEHIND)),
    ],
)
def test_the_tokens_are_those_that_torch_writes(
    family: str, beside_torch: Any, random_ids: Any, config: dict[str, Any]
) -> None:
    torch_runtime, other = beside_torch(family, **config)
    prefix = mixed_prefix(torch_runtime, random_ids)

    for asked in (prefix, None):
        for seed in range(2):
            prompt = random_ids(5 + seed, 7 + seed)
            expected = torch_runtime.generate(asked, prompt, max_new_tokens=8, stop_ids=())
            made = other.generate(asked, prompt, max_new_tokens=8, stop_ids=())
            assert made.token_ids == expected.token_ids
            assert made.positions == expected.positions
            assert not made.stopped


def test_sizes_are_those_of_torch(beside_torch: Any) -> None:
    torch_runtime, other = beside_torch()

    assert other.vocabulary == torch_runtime.vocabulary
    assert other.context_window == torch_runtime.context_window
    assert other.kv_bytes(10) == torch_runtime.kv_bytes(10)
    assert other.name.split()[1] == "float32"


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(
    beside_torch: Any, random_ids: Any
) -> None:
    torch_runtime, other = beside_torch()
    prefix, prompt = mixed_prefix(torch_runtime, random_ids), random_ids(5)
    free = torch_runtime.generate(prefix, prompt, max_new_tokens=8, stop_ids=()).token_ids
    seen: list[int] = []

    made = other.generate(
        prefix, prompt, max_new_tokens=8, stop_ids=[free[3]], on_token=seen.append
    )

    assert made.stopped
    assert tuple(seen) == made.token_ids == free[: free.index(free[3])]
    assert other.generate(None, prompt, max_new_tokens=0, stop_ids=()).token_ids == ()


@pytest.mark.parametrize("config", [AROUND, KEY_VALUES])
def test_answers_and_spans_written_together_are_those_of_torch(
    beside_torch: Any, random_ids: Any, config: dict[str, Any]
) -> None:
    torch_runtime, other = beside_torch(**config)
    shared = mixed_prefix(torch_runtime, random_ids)
    shapes = [(8, 2), (16, 4), (5, 2), (16, 8), (1, 1)]
    payloads = torch_runtime.encode(
        [random_ids(tokens, i) for i, (tokens, _) in enumerate(shapes)], [k for _, k in shapes]
    )
    spans = [
        Prefix.of_payload(own, tokens=tokens, objective="ae")
        for own, (tokens, _) in zip(payloads, shapes, strict=True)
    ]
    alone = Prefix.of_payload(payloads[0], tokens=8, objective="ft")
    requests = [
        Request(prefix=prefix, prompt_ids=random_ids(3 + 2 * i, 40 + i))
        for i, prefix in enumerate([shared, None, alone, shared, None, shared])
    ]
    expected = torch_runtime.generate_many(requests, max_new_tokens=8, stop_ids=())
    stops = [expected[0].token_ids[2]]

    # The first three share nothing, so that each has places of its own.
    for chosen, stop_ids in ((requests, ()), (requests, stops), (requests[:3], ())):
        made = other.generate_many(chosen, max_new_tokens=8, stop_ids=stop_ids)
        wanted = torch_runtime.generate_many(chosen, max_new_tokens=8, stop_ids=stop_ids)
        assert [(m.token_ids, m.stopped) for m in made] == [
            (m.token_ids, m.stopped) for m in wanted
        ]
    assert other.write_back(spans) == torch_runtime.write_back(spans)


def test_positions_with_gaps_are_refused(beside_torch: Any) -> None:
    with pytest.raises(InputError, match="cannot read the memories of this adapter") as caught:
        beside_torch(layout="uniform")
    assert "--runtime torch" in str(caught.value.fix)
