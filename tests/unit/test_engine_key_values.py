"""An engine whose memories are keys and values, against direct calls of its model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

import icae
from icae.compression.adaptive import FidelityPolicy
from icae.compression.refinement import RefineConfig
from icae.decode.prefix import Prefix, Request
from icae.engine import Engine
from icae.errors import IncompatibleMemoryError
from icae.memory import KeyValueSlots, Memory, Span, memory_bytes, read_header
from icae.model.adapter import save_adapter
from icae.model.decoder import DecoderRow, joined, label_logits
from icae.model.key_values import KeyValueMemory, KeyValueModel
from icae.model.objectives import (
    DecoderTask,
    autoencoding,
    continuation,
    draw_probes,
    instruction,
)
from icae.model.positions import document_places
from icae.model.prompts import render_prompt, tokenize
from mixed_prefix import KEY_VALUES

TEXT = "The inner thing is in the thin tin: a thief ran there, and the end is near.\n"
OTHER = "A hen is in the other inn."
ONE = np.zeros(1, dtype=np.int64)


@pytest.fixture(autouse=True)
def _without_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def engine(build_engine: Callable[..., Engine]) -> Engine:
    return build_engine(**KEY_VALUES)


def ids_of(engine: Engine, text: str) -> Any:
    return tokenize(engine.tokenizer, text)


def made_by(engine: Engine, texts: list[str], ratio: float = 4.0) -> KeyValueMemory:
    """The memory that the model itself makes of texts, one after another, rounded as a file."""
    model = engine.runtime.model
    assert isinstance(model, KeyValueModel)
    memories = model.encode([ids_of(engine, text) for text in texts], [ratio] * len(texts))
    places: list[int] = []
    start = 0
    for memory, text in zip(memories, texts, strict=True):
        places += [start + place for place in memory.places]
        start += len(ids_of(engine, text))
    made = joined([m.key_values for m in memories])
    rounded = tuple((keys.bfloat16().float(), values.bfloat16().float()) for keys, values in made)
    return KeyValueMemory(key_values=rounded, places=places)


def written(
    engine: Engine, memory: KeyValueMemory, task: Callable[[Any], DecoderTask], count: int
) -> list[int]:
    """Greedy decoding that scores everything again for each token."""
    ids: list[int] = []
    for _ in range(count):
        asked = task(np.array(ids, dtype=np.int64))
        (logits_TV,) = engine.runtime.model.label_logits([memory], [asked])  # type: ignore[list-item]
        ids.append(int(logits_TV[-1].argmax()))
    return ids


def answering(prompt: Any) -> Callable[[Any], DecoderTask]:
    return lambda ids: instruction(np.concatenate([prompt, ids]), ONE)


def text_of(engine: Engine, ids: list[int]) -> str:
    stops = [i for i, token in enumerate(ids) if token in engine.answerer.stop_ids]
    kept = ids[: stops[0]] if stops else ids
    return str(engine.tokenizer.decode(kept, skip_special_tokens=True)).strip()


@pytest.mark.parametrize(
    "config",
    [{}, {"framing": "behind"}, {"layout": "uniform"}, {"family": "gpt-neox"}, {"lead_slots": 3}],
)
def test_answers_equal_a_loop_that_keeps_no_cache(
    build_engine: Callable[..., Engine], config: dict[str, Any]
) -> None:
    engine = build_engine(**(KEY_VALUES | config))
    one, other = engine.compress(TEXT, ratio=4), engine.compress(OTHER, ratio=2)
    asked = [(one, "Who ran?"), (one, "Why?"), (other, "Who?"), (one + one, "Where?")]
    models = [
        made_by(engine, [TEXT]),
        made_by(engine, [TEXT]),
        made_by(engine, [OTHER], ratio=2),
        made_by(engine, [TEXT, TEXT]),
    ]
    expected = [
        text_of(engine, written(engine, m, answering(render_prompt(engine.tokenizer, q)), 6))
        for m, (_, q) in zip(models, asked, strict=True)
    ]

    together = engine.ask_many([*asked, (TEXT, "Who ran?")], max_new_tokens=6)
    assert [answer.text for answer in together[:-1]] == expected
    assert together[-1].text == engine.ask_text(TEXT, "Who ran?", max_new_tokens=6).text
    for (memory, question), text in zip(asked, expected, strict=True):
        pieces: list[str] = []
        answer = engine.ask(memory, question, max_new_tokens=6, on_text=pieces.append)
        assert answer.text == "".join(pieces).strip() == text
        front = engine.config.front + engine.config.objective_tokens + engine.config.lead_slots
        prompt = len(render_prompt(engine.tokenizer, question))
        assert answer.prompt_tokens == memory.positions + front + prompt


def test_a_conversation_goes_on_from_what_was_read(engine: Engine, build_engine: Any) -> None:
    memory = engine.compress(TEXT, ratio=4)
    first = engine.ask(memory, "Who ran?", max_new_tokens=4).text
    later = engine.ask(memory, "Why?", history=[("Who ran?", first)], max_new_tokens=6)
    grown = engine.ask(memory + engine.compress(OTHER), "Why?", max_new_tokens=6)

    fresh = build_engine(**KEY_VALUES)
    history = [("Who ran?", first)]
    again = fresh.ask(memory, "Why?", history=history, max_new_tokens=6)
    assert later.text == again.text
    again = build_engine(**KEY_VALUES).ask(memory + fresh.compress(OTHER), "Why?", max_new_tokens=6)
    assert grown.text == again.text


def test_a_second_question_costs_its_prompt_and_no_pass_over_the_slots_of_a_memory(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = engine.compress(TEXT, ratio=4)
    first = engine.ask(memory, "Who ran?", max_new_tokens=2)
    read: list[int] = []
    body = engine.runtime.model.decoder.base_model
    forward = body.forward

    def counting(*args: Any, **options: Any) -> Any:
        read.append(options["inputs_embeds"].shape[1])
        return forward(*args, **options)

    def never(*_: Any) -> None:
        raise AssertionError("the slots were gone through")

    monkeypatch.setattr(body, "forward", counting)
    monkeypatch.setattr("icae.memory.key_values._bytes", never)
    monkeypatch.setattr(type(engine.runtime.form), "past", never)
    engine.ask(memory, "Ah?", max_new_tokens=2)
    prompt = len(render_prompt(engine.tokenizer, "Ah?"))
    assert sum(read) <= prompt + 1  # and the first of the two answer tokens
    # Memories are joined anew for every question of a chat: their spans are the same.
    again = memory.with_documents(memory.documents)
    assert engine.ask(again, "Who ran?", max_new_tokens=2).text == first.text
    assert Prefix.of_memory(again, "ft").digest == Prefix.of_memory(memory, "ft").digest


@pytest.mark.parametrize("objective", ["ft", "lm"])
def test_verbatim_tokens_are_read_as_in_any_text(engine: Engine, objective: Any) -> None:
    memory, prompt = engine.verbatim(TEXT), ids_of(engine, "Who?")
    model = engine.runtime.model
    markers_MD, ids = model.markers(objective), ids_of(engine, TEXT)
    embed = model.decoder.get_input_embeddings()
    expected: list[int] = []
    for _ in range(6):
        inputs_FD = torch.cat([markers_MD[:2], embed(torch.from_numpy(ids)), markers_MD[2:]])
        read = np.array([*prompt, *expected], dtype=np.int64)
        size = len(inputs_FD) + len(read)
        row = DecoderRow(
            ids=read, positions=range(size), scored=slice(size - 1, size), inputs_FD=inputs_FD
        )
        (logits_TV,) = label_logits(model.decoder, [row])
        expected.append(int(logits_TV[0].argmax()))

    prefix = Prefix.of_memory(memory, objective)
    request = Request(prefix=prefix, prompt_ids=prompt)
    made = engine.runtime.generate(prefix, prompt, max_new_tokens=6, stop_ids=())
    together = engine.runtime.generate_rows([request, request], [6, 6], ())
    assert [list(one.token_ids) for one in (made, *together)] == [expected] * 3


@pytest.mark.parametrize("objective", ["ft", "ae"])
def test_verbatim_tokens_between_slots_see_those_before_them(
    engine: Engine, objective: Any
) -> None:
    memory = engine.compress(TEXT, ratio=4)
    (document,) = memory.documents
    middle = document.spans[1]
    ids = ids_of(engine, TEXT)[middle.token_start : middle.token_end]
    kept = Span.verbatim(
        ids,
        token_start=middle.token_start,
        char_start=middle.char_start,
        char_end=middle.char_end,
    )
    spans = (document.spans[0], kept, *document.spans[2:])
    mixed = memory.with_documents([replace(document, spans=spans)])

    model = engine.runtime.model
    assert isinstance(model, KeyValueModel)
    own = made_by(engine, [TEXT]).key_values
    places = document_places([(span.tokens, span.positions) for span in spans])
    at = [4 + p for p in places] if objective == "ae" else [2 + i for i in range(len(places))]
    a, b = spans[0].positions, spans[0].positions + len(ids)
    skipped = document.spans[1].positions
    first = model.place(tuple((k[:, :, :a], v[:, :, :a]) for k, v in own), at[:a])
    cache = DynamicCache(joined([model.read_front(objective), first]))
    model.decoder.base_model(
        input_ids=torch.from_numpy(ids)[None],
        attention_mask=torch.ones(1, 2 + b, dtype=torch.long),
        position_ids=torch.tensor([at[a:b]]),
        past_key_values=cache,
    )
    behind = tuple((k[:, :, a + skipped :], v[:, :, a + skipped :]) for k, v in own)
    past = joined([tuple((k, v) for k, v, *_ in cache), model.place(behind, at[b:])])
    begin = 2 if objective == "ae" else 2 + len(places)
    size = 2 + len(ids)
    row = DecoderRow(
        ids=ids,
        positions=range(begin, begin + size),
        scored=slice(0, size),
        inputs_FD=model.markers(objective)[2:],
        past=past,
    )
    (expected_TV,) = label_logits(model.decoder, [row])
    task = replace(continuation(ids), tokens=objective)
    (score,) = engine.runtime.score([Prefix.of_memory(mixed, objective)], [task])
    target_T1 = torch.from_numpy(ids)[:, None]
    expected_T = expected_TV[1:-1].log_softmax(dim=-1).gather(1, target_T1)[:, 0]
    torch.testing.assert_close(score.log_probs_T, expected_T, atol=1e-4, rtol=1e-4)


def test_fidelity_is_what_the_model_scores(engine: Engine) -> None:
    memory, ids = engine.compress(TEXT, ratio=4), ids_of(engine, TEXT)
    model = engine.runtime.model
    for span in memory.spans:
        piece = ids[span.token_start : span.token_end]
        alone = model.encode([piece], [4.0])
        (score,) = model.score(alone, [autoencoding(piece)])  # type: ignore[arg-type]
        assert span.token_fidelity is not None
        assert span.token_fidelity.reproduced.tolist() == score.correct_T.tolist()
        assert isinstance(span.payload, KeyValueSlots)
        assert span.payload.positions == span.slots == -(-span.tokens // 4)


def test_spans_and_whole_documents_are_written_back_on_their_own_axis(engine: Engine) -> None:
    memory, ids = engine.compress(TEXT, ratio=4), ids_of(engine, TEXT)
    model = engine.runtime.model
    assert isinstance(model, KeyValueModel)
    for made in engine.reconstruct(memory):
        span = memory.spans[made.span]
        (alone,) = model.encode([ids[span.token_start : span.token_end]], [4.0])
        expected = written(
            engine, alone, lambda ids: autoencoding(np.concatenate([ids, ONE])), span.tokens
        )
        assert list(made.token_ids) == expected

    (whole,) = engine.runtime.write_back([Prefix.of_memory(memory, "ae")])
    loop = written(
        engine,
        made_by(engine, [TEXT]),
        lambda ids: autoencoding(np.concatenate([ids, ONE])),
        len(ids),
    )
    assert list(whole) == loop


def test_a_memory_grows_and_shrinks(engine: Engine) -> None:
    memory = engine.append(engine.compress(TEXT, ratio=4), OTHER)
    assert memory.documents[0].source == TEXT + OTHER
    assert {span.kind for span in engine.delete(memory, 0, 4).spans} == {"key-values"}
    assert memory.select([0]).spans[0] == memory.spans[0]
    assert engine.compress(TEXT) == engine.compress(TEXT) != engine.compress(OTHER)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_memory_from_its_file_is_the_same_and_gives_the_same_answers(
    engine: Engine, tmp_path: Path, dtype: Any
) -> None:
    made = engine.compress(TEXT, ratio=4) + engine.verbatim(OTHER)
    spans = []
    for span in made.documents[0].spans:
        assert isinstance(span.payload, KeyValueSlots)
        payload = KeyValueSlots(pairs_KY2HW=span.payload.pairs_KY2HW, dtype=dtype)
        np.testing.assert_allclose(
            payload.pairs_KY2HW, span.payload.pairs_KY2HW, atol=0.02 * (dtype == "int8")
        )
        spans.append(replace(span, payload=payload))
    documents = (replace(made.documents[0], spans=tuple(spans)), made.documents[1])
    provenance = replace(made.provenance, slot_dtype=dtype)
    memory = replace(made, documents=documents, provenance=provenance)

    memory.save(tmp_path / "a.icae")
    loaded = Memory.load(tmp_path / "a.icae")
    assert loaded == memory
    assert memory_bytes(loaded) == (tmp_path / "a.icae").read_bytes()
    header = read_header(tmp_path / "a.icae")
    assert [span.kind for span in header.spans] == [span.kind for span in memory.spans]
    assert header.slot_count == memory.slot_count == sum(span.slots for span in spans)
    asked: dict[str, Any] = {"question": "Who ran?", "max_new_tokens": 6}
    assert engine.ask(loaded, **asked).text == engine.ask(memory, **asked).text
    assert engine.memory_digest(loaded) == engine.memory_digest(memory)
    assert (engine.memory_digest(made) == engine.memory_digest(memory)) == (dtype == "bfloat16")


def test_weak_spans_get_better_keys_and_values_that_a_file_keeps(
    engine: Engine, tmp_path: Path
) -> None:
    memory = engine.compress(TEXT, ratio=4)
    config = RefineConfig(steps=30, target=1.0, learning_rate=0.3, slack=np.inf)
    *_, better = engine.refine(memory, config)
    assert (better.fidelity or 0) > (memory.fidelity or 0)
    better.save(tmp_path / "a.icae")
    loaded = Memory.load(tmp_path / "a.icae")
    assert loaded == better
    assert all(span.refine_steps > 0 for span in loaded.spans)
    prefix = Prefix.of_memory(loaded, "ae", spans=slice(1))
    (score,) = engine.runtime.score([prefix], [autoencoding(ids_of(engine, TEXT)[:16])])
    assert float(score.correct_T.float().mean()) == loaded.spans[0].fidelity


def test_a_policy_refines_what_falls_short(engine: Engine) -> None:
    config = RefineConfig(steps=40, learning_rate=0.3, slack=np.inf)
    policy = FidelityPolicy(min_fidelity=0.4, ratios=(2.0,), refine=config)
    settled: list[Memory] = []
    memory = engine.compress(TEXT, policy=policy, on_settled=lambda make: settled.append(make()))
    refined = [span for span in memory.spans if span.refine_steps]
    assert refined
    assert all(span.fidelity is not None and span.fidelity >= 0.4 for span in refined)
    last = settled[-1].spans
    assert [span.payload for span in last] == [span.payload for span in memory.spans]


def test_an_adapter_folder_of_this_form_is_loaded(
    engine: Engine, tokenizer: Any, info_for: Any, tmp_path: Path
) -> None:
    model, base = engine.runtime.model, tmp_path / "base"
    model.decoder.save_pretrained(base)
    tokenizer.save_pretrained(base)
    folder = save_adapter(model, info_for(model, tokenizer, base=str(base)), tmp_path / "adapter")

    for dtype in ("float32", "bfloat16"):
        loaded = icae.load(folder, device="cpu", dtype=dtype)
        memory = loaded.compress(TEXT, ratio=4)
        answer = loaded.ask(memory, "Who ran?", max_new_tokens=4)
        assert memory.slots.shape == (0, 32)
        assert memory.slot_count == memory.positions
        if dtype == "float32":
            assert memory.spans == engine.compress(TEXT, ratio=4).spans
            own = engine.ask(engine.compress(TEXT), "Who ran?", max_new_tokens=4)
            assert answer.text == own.text


def test_recall_is_what_the_decoder_finds_behind_the_whole_memory(engine: Engine) -> None:
    memory, ids = engine.compress(TEXT * 2, ratio=2), ids_of(engine, TEXT * 2)
    prefix = Prefix.of_memory(memory, "ft")
    assert len(memory.spans) > 2
    for span in memory.spans:
        own, rng = ids[span.token_start : span.token_end], np.random.default_rng(span.token_start)
        (task,) = draw_probes(rng, own, 1)
        (score,) = engine.runtime.score([prefix], [task])
        assert span.recall == pytest.approx(float(score.correct_T.float().mean()))
    assert memory.recall == pytest.approx(np.mean([span.recall for span in memory.spans]))
    chosen = engine.compress(TEXT, policy=FidelityPolicy(min_fidelity=0.01, ratios=(4.0,)))
    assert all((span.recall is None) == (span.kind == "tokens") for span in chosen.spans)


def test_refined_spans_are_asked_again_behind_the_whole_memory(engine: Engine) -> None:
    memory = engine.compress(TEXT, ratio=4) + engine.compress(OTHER, ratio=4)
    *_, better = engine.refine(memory, RefineConfig(steps=1))
    long = [span for span in better.spans if span.tokens > 8]
    assert len(long) > 3
    assert all(span.recall is not None for span in long)
    ids = {i: ids_of(engine, text) for i, text in enumerate((TEXT, OTHER))}
    unknown = better.with_documents(
        replace(document, spans=tuple(replace(span, recall=None) for span in document.spans))
        for document in better.documents
    )
    assert engine.compressor.with_recall(unknown, ids) == better
    second = engine.compressor.with_recall(unknown, {1: ids[1]})
    assert {span.recall for span in second.documents[0].spans} == {None}
    assert second.documents[1] == better.documents[1]


def test_recall_is_not_measured_of_embeddings_nor_without_verification(
    engine: Engine, build_engine: Any
) -> None:
    for memory in (engine.compress(TEXT, verify=False), build_engine().compress(TEXT)):
        assert {span.recall for span in memory.spans} == {None}
        assert memory.recall is None


def test_slots_of_another_form_are_refused(engine: Engine, build_engine: Any) -> None:
    slots: Engine = build_engine()
    for runtime, maker in ((engine.runtime, slots), (slots.runtime, engine)):
        prefix = Prefix.of_memory(maker.compress(TEXT), "ft")
        with pytest.raises(IncompatibleMemoryError, match="another form"):
            runtime.generate(prefix, ONE, max_new_tokens=1, stop_ids=())
