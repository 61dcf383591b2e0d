from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from icae.decode.prefix import Prefix
from icae.decode.torch import TorchRuntime
from icae.errors import InputError

AROUND = {"framing": "around", "objective_tokens": 3}
KEY_VALUES = AROUND | {"memory": "key-values", "framing": "between"}


@pytest.fixture
def memory_prefix(random_ids: Any) -> Any:
    def build(runtime: TorchRuntime, seed: int = 0) -> Prefix:
        parts = runtime.encode([random_ids(16, seed), random_ids(9, seed + 1)], [4, 3])
        return Prefix(parts=tuple(parts), spans=((16, 4), (9, 3)), objective="ft")

    return build


@pytest.fixture
def places_read() -> Any:
    """Counts the decoder inputs of every pass of a runtime."""

    def watch(runtime: TorchRuntime) -> list[int]:
        seen: list[int] = []
        runtime.model.decoder.base_model.register_forward_hook(
            lambda module, args, output: seen.append(output.last_hidden_state.shape[1])
        )
        return seen

    return watch


@pytest.mark.parametrize("layout", ["uniform-encoder", "uniform"])
def test_questions_and_turns_are_answered_as_if_read_anew(
    family: str, build_model: Any, memory_prefix: Any, random_ids: Any, layout: str
) -> None:
    model = build_model(family, layout=layout, **AROUND)
    runtime = TorchRuntime(model)
    prefix = memory_prefix(runtime)
    first = random_ids(5)
    turns = [first, random_ids(7, 3), np.append(first, random_ids(40, 4)), first, first[:2]]

    for asked in (prefix, None):
        for prompt in turns:
            made = runtime.generate(asked, prompt, max_new_tokens=6, stop_ids=())
            fresh = TorchRuntime(model).generate(asked, prompt, max_new_tokens=6, stop_ids=())
            assert made.token_ids == fresh.token_ids
            assert made.positions == fresh.positions


def test_a_second_question_reads_only_its_own_tokens(
    build_model: Any, memory_prefix: Any, random_ids: Any, places_read: Any
) -> None:
    runtime = TorchRuntime(build_model(**AROUND))
    prefix = memory_prefix(runtime)
    seen = places_read(runtime)

    runtime.generate(prefix, np.array([1, 2, 3]), max_new_tokens=1, stop_ids=())
    runtime.generate(prefix, np.array([1, 9, 9, 9]), max_new_tokens=1, stop_ids=())
    runtime.generate(memory_prefix(runtime, 5), np.array([1]), max_new_tokens=1, stop_ids=())

    # Of another memory nothing but the objective vectors in front is shared.
    assert seen[:2] == [3 + 7 + 3 + 3, 3]
    assert seen[-1] == 7 + 3 + 1
    answer = runtime.generate(prefix, np.array([1]), max_new_tokens=4, stop_ids=()).token_ids
    seen.clear()
    runtime.generate(prefix, np.array([1, *answer, 7, 8]), max_new_tokens=1, stop_ids=())
    assert seen == [3]  # the last token of the answer was never read, and two are new


def test_an_answer_that_was_broken_off_leaves_a_usable_cache(
    build_model: Any, memory_prefix: Any, random_ids: Any
) -> None:
    model = build_model()
    runtime = TorchRuntime(model)
    prefix, prompt = memory_prefix(runtime), random_ids(5)

    def stop(token: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runtime.generate(prefix, prompt, max_new_tokens=4, stop_ids=(), on_token=stop)

    made = runtime.generate(prefix, prompt[:3], max_new_tokens=4, stop_ids=())
    fresh = TorchRuntime(model).generate(prefix, prompt[:3], max_new_tokens=4, stop_ids=())
    assert made.token_ids == fresh.token_ids


@pytest.mark.parametrize("config", [AROUND, KEY_VALUES])
def test_a_saved_cache_gives_the_same_answer_without_reading_the_memory(
    build_model: Any, memory_prefix: Any, random_ids: Any, places_read: Any, config: Any
) -> None:
    model = build_model(**config)
    runtime = TorchRuntime(model)
    prefix, prompt = memory_prefix(runtime), random_ids(5)
    expected = runtime.generate(prefix, prompt, max_new_tokens=6, stop_ids=()).token_ids
    data = runtime.save_kv(prefix)

    other = TorchRuntime(model)
    other.load_kv(prefix, data)
    seen = places_read(other)

    assert other.generate(prefix, prompt, max_new_tokens=6, stop_ids=()).token_ids == expected
    assert seen[0] == 5


def test_bytes_that_are_no_cache_of_this_memory_are_refused(
    build_model: Any, build_decoder: Any, memory_prefix: Any
) -> None:
    runtime = TorchRuntime(build_model())
    prefix = memory_prefix(runtime)
    data = runtime.save_kv(prefix)
    short = Prefix.of_payload(prefix.parts[0].part(0, 2), tokens=8, objective="ft")
    half = TorchRuntime(build_model(decoder=build_decoder().bfloat16()))

    with pytest.raises(InputError, match="damaged"):
        runtime.load_kv(prefix, b"nothing of the kind")
    with pytest.raises(InputError, match="does not fit"):
        runtime.load_kv(short, data)
    with pytest.raises(InputError, match="does not fit"):
        half.load_kv(prefix, data)
    assert half.kv_format != runtime.kv_format


def test_layers_that_forget_are_read_anew_and_their_cache_is_not_kept(
    build_model: Any, build_decoder: Any, memory_prefix: Any, random_ids: Any
) -> None:
    from transformers import MistralConfig

    decoder = build_decoder("mistral")
    assert isinstance(decoder.config, MistralConfig)
    decoder.config.sliding_window = 6
    model = build_model(decoder=decoder)
    runtime = TorchRuntime(model)
    prefix, prompt = memory_prefix(runtime), random_ids(12)

    for ids in (prompt, prompt[:9]):
        made = runtime.generate(prefix, ids, max_new_tokens=6, stop_ids=())
        fresh = TorchRuntime(model).generate(prefix, ids, max_new_tokens=6, stop_ids=())
        assert made.token_ids == fresh.token_ids
    with pytest.raises(InputError, match="cannot be kept"):
        runtime.save_kv(prefix)


def test_a_runtime_says_what_it_is(build_model: Any, build_decoder: Any, random_ids: Any) -> None:
    runtime = TorchRuntime(build_model().train())
    assert (runtime.name, runtime.context_window) == ("torch float32", 256)
    assert not runtime.model.training
    half = TorchRuntime(build_model(decoder=build_decoder().to(torch.bfloat16)))
    assert half.name == "torch bfloat16"
    assert half.slot_dtypes == ("bfloat16",)
    (payload,) = half.encode([random_ids(8)], [2])
    slots = payload.slots_KD  # type: ignore[attr-defined]
    assert slots.dtype == np.float32
    assert np.array_equal(slots, torch.from_numpy(slots).bfloat16().float().numpy())
