"""The llama.cpp runtime against the torch runtime, on tiny models; `make test-llamacpp`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icae.config.types import OWN_TOKENS
from icae.decode.prefix import Prefix, Request
from icae.decode.torch import TorchRuntime
from icae.errors import BaseModelError, InputError
from icae.memory import KeyValueSlots
from mixed_prefix import mixed_prefix

pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed; `make test-llamacpp` installs it"
)

from icae.decode.cache_order import find_order
from icae.decode.llamacpp.context import LlamaContext, LlamaModel
from icae.decode.llamacpp.forms import CacheEntry
from icae.decode.llamacpp.runtime import LlamaCppRuntime
from icae.decode.llamacpp.state import SequenceState
from icae.decode.llamacpp.weights import BaseFolder, write_gguf

AROUND = {"framing": "around", "objective_tokens": 3}
KEY_VALUES = {**AROUND, "memory": "key-values", "framing": "between"}
BEHIND = {**KEY_VALUES, "framing": "behind"}
both_forms = pytest.mark.parametrize("config", [AROUND, KEY_VALUES])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, build_decoder: Any) -> Callable[[str], Path]:
    """The GGUF file, float32, of the tiny model of a family."""
    made: dict[str, Path] = {}

    def path_of(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            build_decoder(family).save_pretrained(folder)
            made[family] = folder / "weights.gguf"
            write_gguf(BaseFolder.open(folder), made[family], "float32")
        return made[family]

    return path_of


def entry_of(decoder: Any, weights: LlamaModel) -> CacheEntry:
    embedding = decoder.get_input_embeddings().weight.detach().numpy()
    return CacheEntry(order=find_order(decoder, weights), embed=lambda ids: embedding[ids])


@pytest.fixture
def build_both(build_model: Any, files: Any) -> Callable[..., tuple[TorchRuntime, Any]]:
    """``build_both(family, **config)``: torch and llama.cpp on the same tiny model."""

    def build(family: str = "llama", **config: Any) -> tuple[TorchRuntime, Any]:
        model = build_model(family, **config)
        vectors = {name: model.tokens.objective(name).detach().numpy() for name in OWN_TOKENS}
        weights = LlamaModel(files(family))
        entry = entry_of(model.decoder, weights) if "memory" in config else None
        return TorchRuntime(model), LlamaCppRuntime(
            weights, model.config, vectors, dtype="float32", entry=entry
        )

    return build


@pytest.mark.parametrize(
    ("family", "config"),
    [
        *((family, config) for family in ("llama", "qwen2", "mistral") for config in ({}, AROUND)),
        # The tiny Mistral has a sliding window: keys and values are not for it.
        *((family, config) for family in ("llama", "qwen2") for config in (KEY_VALUES, BEHIND)),
    ],
)
def test_both_runtimes_write_the_same_tokens(
    family: str, build_both: Any, random_ids: Any, config: dict[str, Any]
) -> None:
    torch_runtime, llama = build_both(family, **config)
    prefix = mixed_prefix(torch_runtime, random_ids)

    for asked in (prefix, None):
        for seed in range(3):
            prompt = random_ids(5 + seed, 7 + seed)
            expected = torch_runtime.generate(asked, prompt, max_new_tokens=8, stop_ids=())
            made = llama.generate(asked, prompt, max_new_tokens=8, stop_ids=())
            assert made.token_ids == expected.token_ids
            assert made.positions == expected.positions


def test_both_runtimes_agree_on_sizes(build_both: Any) -> None:
    torch_runtime, llama = build_both()

    assert llama.vocabulary == torch_runtime.vocabulary
    assert llama.context_window == torch_runtime.context_window
    assert llama.kv_bytes(10) == torch_runtime.kv_bytes(10)
    assert llama.name == "llamacpp float32"


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(
    build_both: Any, random_ids: Any
) -> None:
    torch_runtime, llama = build_both()
    prefix, prompt = mixed_prefix(torch_runtime, random_ids), random_ids(5)
    free = llama.generate(prefix, prompt, max_new_tokens=8, stop_ids=()).token_ids
    seen: list[int] = []

    made = llama.generate(
        prefix, prompt, max_new_tokens=8, stop_ids=[free[-1]], on_token=seen.append
    )

    assert made.stopped
    assert tuple(seen) == made.token_ids == free[: free.index(free[-1])]


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
def test_answers_written_together_equal_those_written_one_by_one(
    build_both: Any, random_ids: Any, config: dict[str, Any]
) -> None:
    torch_runtime, llama = build_both(**config)
    shared = mixed_prefix(torch_runtime, random_ids)
    alone = Prefix.of_payload(
        torch_runtime.encode([random_ids(8, 5)], [2])[0], tokens=8, objective="ft"
    )
    requests = [
        Request(prefix=prefix, prompt_ids=random_ids(3 + 2 * i, 40 + i))
        for i, prefix in enumerate([shared, None, alone, shared, None, shared])
    ]
    expected = torch_runtime.generate_many(requests, max_new_tokens=8, stop_ids=())
    stops = [expected[0].token_ids[2]]

    # The first three share nothing, so that each has places of its own.
    for chosen, stop_ids in ((requests, ()), (requests, stops), (requests[:3], ())):
        made = llama.generate_many(chosen, max_new_tokens=8, stop_ids=stop_ids)
        wanted = torch_runtime.generate_many(chosen, max_new_tokens=8, stop_ids=stop_ids)
        assert [m.token_ids for m in made] == [m.token_ids for m in wanted]
        assert [m.stopped for m in made] == [m.stopped for m in wanted]


@both_forms
def test_spans_are_written_back_alike(
    build_both: Any, random_ids: Any, config: dict[str, Any]
) -> None:
    torch_runtime, llama = build_both(**config)
    shapes = [(16, 4), (5, 2), (16, 8), (1, 1)]
    payloads = torch_runtime.encode(
        [random_ids(tokens, i) for i, (tokens, _) in enumerate(shapes)], [k for _, k in shapes]
    )
    prefixes = [
        Prefix.of_payload(own, tokens=tokens, objective="ae")
        for own, (tokens, _) in zip(payloads, shapes, strict=True)
    ]

    assert llama.write_back(prefixes) == torch_runtime.write_back(prefixes)


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
    files: Any, random_ids: Any, kv_dtype: str, sequences: int
) -> None:
    context = LlamaContext(
        LlamaModel(files("llama")), places=16, sequences=sequences, kv_dtype=kv_dtype
    )
    context.read_tokens(random_ids(3), start=0, sequence=0)
    state = context.state(0)
    assert state.cells_P["position"].tolist() == [0, 1, 2]
    known, fields = state.layout, state.layout.fields(state.data)

    for name in known.fixed():
        if len(fields[name]):
            wrong = state.data.copy()
            wrong[known.fields(wrong)[name].ctypes.data - wrong.ctypes.data] += 2
            with pytest.raises(InputError, match="layout that is not known"):
                SequenceState.read(wrong, known)
    for wrong in (state.data[:-4], state.data[:9], np.append(state.data, state.data[:4])):
        with pytest.raises(InputError, match="layout that is not known"):
            SequenceState.read(wrong, known)


def test_keys_and_values_that_the_cache_cannot_hold_are_refused(
    build_model: Any, build_decoder: Any, random_ids: Any, tmp_path: Path
) -> None:
    build_decoder().save_pretrained(tmp_path)
    write_gguf(BaseFolder.open(tmp_path), tmp_path / "half.gguf", "bfloat16")
    model, weights = build_model(**KEY_VALUES), LlamaModel(tmp_path / "half.gguf")
    vectors = {name: model.tokens.objective(name).detach().numpy() for name in OWN_TOKENS}
    entry = entry_of(model.decoder, weights)
    llama = LlamaCppRuntime(weights, model.config, vectors, entry=entry)
    torch_runtime, prompt = TorchRuntime(model), random_ids(5)
    prefix = mixed_prefix(torch_runtime, random_ids)
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


def test_positions_with_gaps_are_refused(build_both: Any) -> None:
    with pytest.raises(InputError, match="cannot read the memories of this adapter") as caught:
        build_both(layout="uniform")
    assert "--runtime torch" in str(caught.value.fix)


def test_a_damaged_weight_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"GGUF and nothing else")

    with pytest.raises(BaseModelError, match="cannot load the base weights"):
        LlamaModel(path)


def test_bfloat16_weights_and_slots_are_read_too(
    build_model: Any, build_decoder: Any, random_ids: Any, tmp_path: Path
) -> None:
    build_decoder().save_pretrained(tmp_path)
    write_gguf(BaseFolder.open(tmp_path), tmp_path / "half.gguf", "bfloat16")
    model = build_model()
    vectors = {name: model.tokens.objective(name).detach().numpy() for name in OWN_TOKENS}
    llama = LlamaCppRuntime(LlamaModel(tmp_path / "half.gguf"), model.config, vectors)
    prefix = mixed_prefix(TorchRuntime(model), random_ids)

    made = llama.generate(prefix, random_ids(5), max_new_tokens=6, stop_ids=())

    assert len(made.token_ids) == 6
    assert llama.kv_bytes(10) == 1280
