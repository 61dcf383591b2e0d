"""The llama.cpp runtime against the torch runtime, on tiny models; `make test-llamacpp`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icae.decode.prefix import Prefix, Request
from icae.errors import BaseModelError, InputError
from icae.memory import KeyValueSlots
from mixed_prefix import mixed_prefix

pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed; `make test-llamacpp` installs it"
)

from icae.decode.llamacpp.context import LlamaContext, LlamaModel
from icae.decode.llamacpp.state import SequenceState

AROUND = {"framing": "around", "objective_tokens": 3}
KEY_VALUES = {**AROUND, "memory": "key-values", "framing": "between"}
both_forms = pytest.mark.parametrize("config", [AROUND, KEY_VALUES])


@both_forms
def test_a_second_question_and_a_longer_conversation_are_answered_as_if_read_anew(
    build_both: Any, random_ids: Any, config: dict[str, Any]
) -> None:
    torch_runtime, llama = build_both(**config)
    prefix = mixed_prefix(torch_runtime, random_ids)
    first = random_ids(5)
    turns = [first, random_ids(7, 3), np.append(first, random_ids(40, 4)), first, first[:2]]

    for prompt in turns:
        made = llama.generate(prefix, prompt, max_new_tokens=6, stop_ids=())
        fresh = torch_runtime.generate(prefix, prompt, max_new_tokens=6, stop_ids=())
        assert made.token_ids == fresh.token_ids


def test_what_was_read_is_not_read_again(
    build_both: Any, random_ids: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_runtime, llama = build_both(**AROUND)
    prefix, prompt = mixed_prefix(torch_runtime, random_ids), random_ids(5)
    llama.generate(prefix, prompt, max_new_tokens=2, stop_ids=())
    read: list[int] = []
    decode = llama._context._decode
    monkeypatch.setattr(
        llama._context,
        "_decode",
        lambda where, *rest, **options: (read.append(len(where)), decode(where, *rest, **options)),
    )

    llama.generate(prefix, np.append(prompt, 3), max_new_tokens=1, stop_ids=())

    assert read == [1]  # the one token that is new

    read.clear()
    llama.last = None
    llama.generate(prefix, prompt, max_new_tokens=1, stop_ids=())
    # Objective vectors and slots in one pass, as far as no token stands between them.
    assert read == [3 + 4, 6, 3 + 3, 5]


@both_forms
def test_a_cache_that_grows_keeps_what_was_read(
    build_both: Any, random_ids: Any, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    monkeypatch.setattr("icae.decode.llamacpp.runtime.GROWTH", 16)
    torch_runtime, llama = build_both(**config)
    prefix, prompt = mixed_prefix(torch_runtime, random_ids), random_ids(5)
    llama.generate(prefix, prompt, max_new_tokens=2, stop_ids=())
    first = llama._context

    longer = np.append(prompt, random_ids(90, 4))
    made = llama.generate(prefix, longer, max_new_tokens=6, stop_ids=())

    assert llama._context is not first
    expected = torch_runtime.generate(prefix, longer, max_new_tokens=6, stop_ids=())
    assert made.token_ids == expected.token_ids


@both_forms
def test_a_saved_cache_gives_the_same_answer_without_reading_the_memory(
    build_both: Any, random_ids: Any, config: dict[str, Any]
) -> None:
    torch_runtime, llama = build_both(**config)
    prefix, prompt = mixed_prefix(torch_runtime, random_ids), random_ids(5)
    expected = llama.generate(prefix, prompt, max_new_tokens=6, stop_ids=()).token_ids
    data = llama.save_kv(prefix)

    _, other = build_both(**config)
    other.load_kv(prefix, data)

    assert other.last is not None
    assert len(other.last) == prefix.positions + 6
    made = other.generate(prefix, prompt, max_new_tokens=6, stop_ids=())
    assert made.token_ids == expected


def test_bytes_that_are_no_cache_of_this_memory_are_refused_and_nothing_is_kept(
    build_both: Any, random_ids: Any
) -> None:
    torch_runtime, llama = build_both()
    prefix, prompt = mixed_prefix(torch_runtime, random_ids), random_ids(5)
    expected = llama.generate(prefix, prompt, max_new_tokens=6, stop_ids=()).token_ids
    other = Prefix.of_payload(
        torch_runtime.encode([random_ids(8, 5)], [2])[0], tokens=8, objective="ft"
    )
    data = llama.save_kv(other)

    for wrong in (data, b"nothing of the kind", data[: len(data) // 2]):
        with pytest.raises(InputError, match="key-value cache"):
            llama.load_kv(prefix, wrong)
        made = llama.generate(prefix, prompt, max_new_tokens=6, stop_ids=())
        assert made.token_ids == expected


@pytest.mark.parametrize("kv_dtype", ["float32", "float16"])
@pytest.mark.parametrize("sequences", [1, 2])
def test_a_state_whose_layout_is_not_known_is_refused(
    build_both: Any, random_ids: Any, kv_dtype: str, sequences: int
) -> None:
    _, llama = build_both()
    context = LlamaContext(llama.model, places=16, sequences=sequences, kv_dtype=kv_dtype)
    context.read_tokens(random_ids(3), start=0, sequence=0)
    state = context.state(0)
    assert state.cells_P["position"].tolist() == [0, 1, 2]
    known = state.layout

    for name, (found, _) in state.known().items():
        if found.size:
            wrong = SequenceState(data=state.data.copy(), layout=known)
            field = wrong.known()[name][0]
            wrong.data[field.ctypes.data - wrong.data.ctypes.data] += 2
            with pytest.raises(InputError, match="layout that is not known"):
                SequenceState.read(wrong.data, known)
    for wrong in (state.data[:-4], state.data[:9], np.append(state.data, state.data[:4])):
        with pytest.raises(InputError, match="layout that is not known"):
            SequenceState.read(wrong, known)


def test_keys_and_values_that_the_cache_cannot_hold_are_refused(
    build_both: Any, random_ids: Any
) -> None:
    torch_runtime, llama = build_both(dtype="bfloat16", **KEY_VALUES)
    prefix, prompt = mixed_prefix(torch_runtime, random_ids), random_ids(5)
    assert llama.kv_bytes(10) == 1280
    requests = [Request(prefix=prefix, prompt_ids=prompt)] * 2
    made = llama.generate_many(requests, max_new_tokens=4, stop_ids=())
    assert made[0].token_ids == made[1].token_ids

    pairs = prefix.parts[0].pairs_KY2HW  # type: ignore[attr-defined]
    for change, what in ((1e6, "too large for the cache"), (1.0, "not of this base model")):
        wrong = KeyValueSlots(
            pairs_KY2HW=pairs * np.float32(change) if change > 1 else pairs[:, :1]
        )
        asked = Prefix.of_payload(wrong, tokens=16, objective="ft")
        with pytest.raises(InputError, match=what):
            llama.generate(asked, prompt, max_new_tokens=1, stop_ids=())


def test_a_damaged_weight_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"GGUF and nothing else")

    with pytest.raises(BaseModelError, match="cannot load the base weights"):
        LlamaModel(path)
