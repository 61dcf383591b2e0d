"""The key-value form of memory: what it is made of, where it stands, what learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DynamicCache

from icae.errors import AdapterError
from icae.model.adapter import FORMS, load_trained, save_adapter
from icae.model.adapter_files import read_info, require_slots
from icae.model.adapter_vectors import lead_vectors
from icae.model.key_values import KeyValueMemory, KeyValueModel
from icae.model.objectives import autoencoding, continuation, instruction

FORM: dict[str, Any] = {
    "memory": "key-values",
    "framing": "between",
    "objective_tokens": 2,
    "lora_targets": "all-linear",
}


@pytest.fixture
def build(build_model):
    """``build(family)``: a tiny model, as if trained."""
    return lambda family="llama", **settings: build_model(family, **FORM, **settings)


def true_memory(model: KeyValueModel, ids: Any) -> KeyValueMemory:
    """The base's own keys and values of a text: a memory at 1x that loses nothing."""
    cache, places = DynamicCache(), torch.arange(len(ids))
    front = model.config.front
    embed = model.decoder.get_input_embeddings()
    lead = model.markers("lm")[:front]
    with torch.no_grad():
        model.decoder.base_model(
            inputs_embeds=torch.cat([lead, embed(torch.from_numpy(ids))])[None],
            attention_mask=torch.ones(1, front + len(ids), dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
        )
    pairs = tuple(
        (turn(keys[:, :, front:], -(places + front)), values[:, :, front:])
        for turn, (keys, values, *_) in zip(model.turns, cache, strict=True)
    )
    return KeyValueMemory(key_values=pairs, places=places.tolist())


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt-neox"])
def test_true_keys_and_values_at_1x_are_the_full_context(build, random_ids, name):
    model, ids, task = build(name), random_ids(20), continuation(random_ids(9, 3))
    markers = model.markers("lm")
    front, behind = markers[:2], markers[2:]
    embed = model.decoder.get_input_embeddings()
    with torch.no_grad():
        (logits,) = model.label_logits([true_memory(model, ids)], [task])
        row = torch.cat(
            [
                front,
                embed(torch.from_numpy(ids)),
                behind,
                embed(torch.from_numpy(task.input_ids)),
            ]
        )
        whole = model.decoder(inputs_embeds=row[None]).logits[0, len(front) + len(ids) + 1 :]
    torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)


def test_the_context_is_read_by_the_base_alone_and_memory_tokens_through_the_lora(
    build, random_ids
):
    model, ids = build(), random_ids(12)
    with torch.no_grad():
        (memory,) = model.encode([ids], [4.0])
        seen = DynamicCache()
        model.decoder.base_model(
            input_ids=torch.from_numpy(ids)[None],
            attention_mask=torch.ones(1, 12, dtype=torch.long),
            past_key_values=seen,
            use_cache=True,
        )
        embeds = model.decoder.get_input_embeddings()(torch.from_numpy(ids))
        inputs = model.tokens.memory_ND[:1] + embeds.view(3, 4, -1).mean(dim=1)
        model.adapted.base_model(
            inputs_embeds=inputs[None],
            attention_mask=torch.ones(1, 15, dtype=torch.long),
            position_ids=torch.tensor([[1, 5, 9]]),
            past_key_values=seen,
            use_cache=True,
        )
    assert list(memory.places) == [1, 5, 9]
    for turn, (keys, values), (wanted_k, wanted_v, *_) in zip(
        model.turns, memory.key_values, seen, strict=True
    ):
        placed = turn(keys, torch.tensor([1, 5, 9]))
        torch.testing.assert_close(placed, wanted_k[:, :, 12:], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(values, wanted_v[:, :, 12:], atol=1e-5, rtol=1e-5)


def test_a_memory_written_back_stands_on_the_documents_own_axis(build, random_ids):
    model, ids = build(), random_ids(20)  # a span of 16 and one of 4
    with torch.no_grad():
        (memory,) = model.encode([ids], [4.0])
        written = model.row(memory, autoencoding(ids))
        asked = model.row(memory, instruction(random_ids(3), random_ids(2)))

    assert list(memory.places) == [1, 5, 9, 13, 17]
    # Two tokens before, two behind; then the text at the places of what it is written from.
    assert list(written.positions) == list(range(2, 2 + 2 + 19))
    assert list(asked.positions) == list(range(7, 7 + 2 + 4))
    assert written.past is not None
    assert asked.past is not None
    for turn, (keys, _), (there, _), (here, _) in zip(
        model.turns, memory.key_values, written.past, asked.past, strict=True
    ):
        document = torch.tensor([4 + place for place in memory.places])
        torch.testing.assert_close(there[:, :, 2:], turn(keys, document))
        torch.testing.assert_close(here[:, :, 2:], turn(keys, torch.arange(2, 7)))


def test_a_saved_adapter_gives_the_same_memory_and_is_not_taken_for_one_of_slots(
    build, build_decoder, tokenizer, info_for, random_ids, tmp_path
):
    model, ids = build(), random_ids(20)
    info = info_for(model, tokenizer)
    folder = save_adapter(model, info, tmp_path)
    loaded = load_trained(
        FORMS["key-values"],
        read_info(folder),
        folder,
        build_decoder(),
        base_model=info.base_model,
        base_hash=info.base_hash,
    )
    with torch.no_grad():
        (one,), (other,) = model.encode([ids], [4.0]), loaded.encode([ids], [4.0])
    for mine, theirs in zip(one.key_values, other.key_values, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    with pytest.raises(AdapterError, match="cannot be sent to a vLLM server"):
        require_slots(read_info(folder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slots_that_lead_are_learned_where_a_memory_is_asked_and_kept_with_the_adapter(
    build, tmp_path, info_for, tokenizer, dtype
):
    model = build(lead_slots=3)
    ids = torch.arange(3, 19).numpy()
    asked = {"ae": autoencoding(ids), "lm": continuation(ids), "ft": instruction(ids[:4], ids[4:])}
    for name, task in asked.items():
        model.zero_grad()
        (score,) = model.score(model.encode([ids], [4.0]), [task])
        score.loss_sum.backward()
        learned = model.lead_PY2HW.grad is not None and bool(model.lead_PY2HW.grad.any())
        assert learned == (name != "ae")

    folder = save_adapter(model, info_for(model, tokenizer), tmp_path / "adapter")
    file = folder / "icae.safetensors"
    save_file({name: t.to(dtype) for name, t in load_file(file).items()}, file)
    kept = lead_vectors(folder, read_info(folder).model)
    assert kept is not None
    expected = model.lead_PY2HW.detach().to(dtype).float()
    torch.testing.assert_close(torch.from_numpy(kept), expected, rtol=0, atol=0)
    assert kept.shape[:3] == (3, model.decoder.config.num_hidden_layers, 2)
