from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icae.engine import Engine
from icae.errors import ConfigError, IncompatibleMemoryError, InputError
from icae.memory import Memory, hash_token_ids
from icae.model.prompts import render_prompt, tokenize

TEXT = "The inner thing is in the thin tin: a thief ran there, and the end is near.\n" * 2
UNICODE = "Fluß – 漢字, e\u0301 and 👩‍👩‍👧🙂🙂 at\u00a0the end 🙂"


def assert_tiles(memory: Memory, text: str) -> None:
    """Spans cover tokens, characters and slots once, and their sources join to the text."""
    at = (0, 0)
    for span in memory.spans:
        assert (span.token_start, span.char_start) == at
        at = (span.token_end, span.char_end)
    assert at == (memory.documents[0].tokens, len(text))
    assert len(memory.slots) == memory.slot_count == sum(span.slots for span in memory.spans)
    sources = [memory.span_source(i) for i in range(len(memory.spans))]
    assert "".join(str(s) for s in sources) == text


@pytest.mark.parametrize("text", [TEXT, UNICODE, "a", " x ", "🙂", "\ud7ff\ufffd\x00"])
@pytest.mark.parametrize("ratio", [1.0, 2.5, 4.0, 100.0])
def test_compress_tiles_tokens_characters_and_slots(
    engine: Engine, text: str, ratio: float
) -> None:
    memory = engine.compress(text, ratio=ratio)

    assert_tiles(memory, text)
    assert all(span.tokens <= 16 for span in memory.spans)
    assert [span.slots for span in memory.spans] == [
        int(np.ceil(span.tokens / ratio)) for span in memory.spans
    ]
    assert {span.ratio for span in memory.spans} == {ratio}


@pytest.mark.parametrize("span_length", [1, 2, 3, 5])
def test_spans_that_end_inside_a_character_still_tile(
    build_engine: Callable[..., Engine], span_length: int
) -> None:
    assert_tiles(build_engine(span_length=span_length).compress(UNICODE, ratio=2), UNICODE)


def test_a_memory_records_what_it_was_made_of(engine: Engine) -> None:
    memory = engine.compress(UNICODE, ratio=2, name="notes.txt")
    (document,) = memory.documents
    ids = tokenize(engine.tokenizer, UNICODE)

    assert document.name == "notes.txt"
    assert document.source == UNICODE
    assert document.sha256 == hashlib.sha256(UNICODE.encode()).hexdigest()
    assert document.token_ids_sha256 == hash_token_ids(ids)
    assert document.tokens == engine.count_tokens(UNICODE) == len(ids)
    assert memory.provenance == engine.provenance
    assert memory.slots.shape == (memory.slot_count, 32)


def test_slots_of_a_long_text_are_those_of_its_spans_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = engine.compress(TEXT, ratio=4)
    ids = tokenize(engine.tokenizer, TEXT)
    for span in memory.spans:
        piece = ids[span.token_start : span.token_end]
        (alone,) = engine.runtime.encode([piece], [span.slots])
        np.testing.assert_allclose(span.slots_KD, alone.slots_KD, atol=1e-5, rtol=1e-5)

    monkeypatch.setattr("icae.decode.torch.TorchRuntime.encoded_tokens", 32)
    seen: list[tuple[int, int]] = []
    again = engine.compress(TEXT, ratio=4, on_progress=lambda *done: seen.append(done))
    np.testing.assert_allclose(memory.slots, again.slots, atol=1e-5, rtol=1e-5)
    spans = len(memory.spans)
    assert seen == [(min(2 * i, spans), spans) for i in range(1, (spans + 1) // 2 + 1)]


def test_an_answer_counts_what_it_read_and_wrote(engine: Engine) -> None:
    memory = engine.compress(TEXT, ratio=4)
    pieces: list[str] = []
    answer = engine.ask(memory, "Who ran?", max_new_tokens=6, on_text=pieces.append)

    question = len(render_prompt(engine.tokenizer, "Who ran?"))
    assert answer.memory_positions == memory.slot_count
    assert answer.prompt_tokens == memory.slot_count + 1 + question
    assert answer.answer_tokens == 6
    assert not answer.finished
    assert "".join(pieces).strip() == answer.text
    assert engine.ask(memory, "Who ran?", max_new_tokens=6).text == answer.text


def test_a_notebook_shows_an_answer_with_its_sources_and_a_memory_token_by_token(
    engine: Engine,
) -> None:
    memory = engine.compress(TEXT, name="<b>.txt") + engine.compress(TEXT, name="annex.txt")
    answer = engine.ask(memory, "Who ran?", max_new_tokens=6)
    assert answer.sources == ("<b>.txt", "annex.txt")
    shown = dataclasses.replace(answer, text="a < b")._repr_html_()
    assert "a &lt; b" in shown
    assert "from &lt;b&gt;.txt<br>from annex.txt<br>" in shown
    assert "from " not in engine.ask_text("The end.", "Who?", max_new_tokens=2)._repr_html_()
    shaded = engine.shaded(memory)
    assert shaded == shaded._repr_html_()
    assert "whole spans are shaded" in memory._repr_html_()
    assert "whole spans are shaded" not in shaded


def test_stop_tokens_are_the_tokenizers_and_the_generation_configs(
    build_engine: Callable[..., Engine], build_decoder: Callable[..., Any], tokenizer: Any
) -> None:
    end = tokenizer.eos_token_id
    for of_model, expected in ((None, {end}), (7, {7, end}), ([7, 8], {7, 8, end})):
        decoder = build_decoder()
        decoder.generation_config.eos_token_id = of_model
        engine = build_engine(decoder=decoder)
        seen: list[Any] = []
        generate = engine.runtime.generate

        def spy(
            *args: Any, seen: list[Any] = seen, generate: Any = generate, **options: Any
        ) -> Any:
            seen.append(options["stop_ids"])
            return generate(*args, **options)

        engine.runtime.generate = spy  # type: ignore[method-assign]
        engine.ask_text("the thing", "Who?", max_new_tokens=1)
        assert set(seen[0]) == expected


def test_an_answer_that_the_model_ends_is_finished(
    engine: Engine, build_engine: Callable[..., Engine], build_decoder: Callable[..., Any]
) -> None:
    prompt = render_prompt(engine.tokenizer, "the thing\n\nWho?")
    written = engine.runtime.generate(None, prompt, max_new_tokens=5, stop_ids=()).token_ids
    decoder = build_decoder()
    decoder.generation_config.eos_token_id = written[0]

    answer = build_engine(decoder=decoder).ask_text("the thing", "Who?", max_new_tokens=5)

    assert answer.finished
    assert answer.answer_tokens == 0
    assert answer.text == ""


def test_asking_the_text_reads_all_of_it(engine: Engine) -> None:
    answer = engine.ask_text(TEXT, "Who ran?", max_new_tokens=4)
    prompt = render_prompt(engine.tokenizer, f"{TEXT}\n\nWho ran?")

    assert answer.memory_positions == engine.count_tokens(TEXT)
    assert answer.prompt_tokens == len(prompt)
    made = engine.runtime.generate(None, prompt, max_new_tokens=4, stop_ids=())
    assert answer.text == engine.tokenizer.decode(made.token_ids, skip_special_tokens=True).strip()


def test_asking_the_text_again_puts_it_before_the_first_turn(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    generate = engine.runtime.generate

    def spy(prefix: Any, prompt_ids: Any, **options: Any) -> Any:
        seen.append(prompt_ids.tolist())
        return generate(prefix, prompt_ids, **options)

    monkeypatch.setattr(engine.runtime, "generate", spy)
    engine.ask_text(
        "the thing", "Why?", history=[("Who?", "Me."), ("So?", "Yes.")], max_new_tokens=1
    )

    assert engine.tokenizer.decode(seen[0]) == (
        "<|user|>the thing\n\nWho?<|end|><|assistant|>Me.<|end|>"
        "<|user|>So?<|end|><|assistant|>Yes.<|end|><|user|>Why?<|end|><|assistant|>"
    )


def test_what_does_not_fit_the_context_window_is_refused(engine: Engine) -> None:
    memory = engine.compress(TEXT, ratio=4)
    question = len(render_prompt(engine.tokenizer, "Who?"))
    room = 256 - (memory.slot_count + 1 + question)

    assert engine.ask(memory, "Who?", max_new_tokens=room).answer_tokens <= room
    with pytest.raises(InputError, match="context window") as caught:
        engine.ask(memory, "Who?", max_new_tokens=room + 1)
    assert caught.value.expected == "at most 256 positions"
    assert "--store" in str(caught.value.fix)
    with pytest.raises(InputError, match="context window") as caught:
        engine.ask_text(TEXT * 4, "Who?", max_new_tokens=1)
    assert "Leave --full-context out" in str(caught.value.fix)


def test_the_exact_prefix_is_the_share_of_leading_tokens(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = engine.compress("the thing is", ratio=4)
    true = tokenize(engine.tokenizer, "the thing is")
    shares = []
    for right in (0, 3, len(true)):
        ids = [*true[:right], *(265 for _ in true[right:])]
        if right == 3:
            ids[-1] = true[-1]  # right again at the end: not part of the prefix
        monkeypatch.setattr(engine.runtime, "write_back", lambda _, ids=ids: [tuple(ids)])
        shares.append(engine.reconstruct(memory)[0].exact_prefix)

    assert shares == [0.0, 3 / len(true), 1.0]


def test_without_the_source_there_is_nothing_to_compare_with(engine: Engine) -> None:
    memory = engine.compress(TEXT, ratio=4)
    bare = engine.reconstruct(memory.without_source())

    assert all(r.original is None and r.exact_prefix is None for r in bare)
    assert [r.token_ids for r in bare] == [r.token_ids for r in engine.reconstruct(memory)]


def test_a_memory_of_another_adapter_is_refused(
    engine: Engine, build_engine: Callable[..., Engine]
) -> None:
    foreign = build_engine(adapter_hash="f" * 64).compress(TEXT, ratio=4)

    for use in (
        lambda: engine.ask(foreign, "Who?"),
        lambda: engine.reconstruct(foreign),
        lambda: engine.append(foreign, "x"),
        lambda: engine.delete(foreign, 0, 1),
    ):
        with pytest.raises(IncompatibleMemoryError, match="adapter differs") as caught:
            use()
        assert "f" * 64 in str(caught.value.got)
        assert "a" * 64 in str(caught.value.expected)
    with pytest.raises(IncompatibleMemoryError):
        engine.compress(TEXT) + foreign


def test_slots_in_bfloat16_are_read_in_float32_and_not_written_on(engine: Engine) -> None:
    memory = engine.compress(TEXT, ratio=4)
    other = dataclasses.replace(
        memory, provenance=dataclasses.replace(memory.provenance, slot_dtype="bfloat16")
    )

    assert engine.ask(other, "Who?", max_new_tokens=3).text is not None
    with pytest.raises(IncompatibleMemoryError, match=r"slot dtype(.|\n)*--dtype bfloat16"):
        engine.append(other, TEXT)


def test_a_tokenizer_without_a_chat_template_serves(
    build_engine: Callable[..., Engine], build_tokenizer: Callable[..., Any]
) -> None:
    engine = build_engine(own_tokenizer=build_tokenizer(chat_template=None))
    memory = engine.compress(TEXT, ratio=4)

    answer = engine.ask(memory, "Who?", max_new_tokens=2)

    assert answer.prompt_tokens == memory.slot_count + 1 + engine.count_tokens("Who?\n")


def test_the_uniform_layout_counts_the_tokens_that_slots_stand_for(
    build_engine: Callable[..., Any],
) -> None:
    text = TEXT * 8
    contiguous = build_engine(layout="uniform-encoder")
    uniform = build_engine(layout="uniform")
    room = contiguous.runtime.context_window
    assert contiguous.count_tokens(text) > room, "the text must be longer than the window"

    contiguous.ask(contiguous.compress(text, ratio=16), "the?", max_new_tokens=1)
    with pytest.raises(InputError, match="context window"):
        uniform.ask(uniform.compress(text, ratio=16), "the?", max_new_tokens=1)


def test_many_questions_get_the_answers_that_each_gets_alone(engine: Engine) -> None:
    one, other = engine.compress(TEXT, ratio=4), engine.compress("the thing in a shed", ratio=2)
    asked: list[tuple[Any, str]] = [
        (one, "Who ran?"),
        ("the thing", "Who?"),
        (other, "Where is the thing?"),
        (one, "Why did they?"),
    ]

    together = engine.ask_many(asked, max_new_tokens=6)

    alone = [
        engine.ask_text(context, question, max_new_tokens=6)
        if isinstance(context, str)
        else engine.ask(context, question, max_new_tokens=6)
        for context, question in asked
    ]

    def untimed(answer: Any) -> Any:
        return dataclasses.replace(answer, seconds=0.0, first_token_seconds=0.0)

    assert [untimed(a) for a in together] == [untimed(a) for a in alone]
    assert engine.ask_many([]) == []


def test_many_texts_become_the_memories_that_each_becomes_alone(engine: Engine) -> None:
    texts = [TEXT, "the thing", "a tin in the shed and a thin ring in it", TEXT[:70]]
    seen: list[tuple[int, int]] = []

    together = engine.compress_many(
        texts, ratio=4, names=list("abcd"), on_progress=lambda *done: seen.append(done)
    )

    alone = [engine.compress(t, ratio=4, name=n) for t, n in zip(texts, "abcd", strict=True)]
    for own, memory in zip(together, alone, strict=True):
        assert [s.tokens for s in own.spans] == [s.tokens for s in memory.spans]
        assert [d.source for d in own.documents] == [d.source for d in memory.documents]
        np.testing.assert_allclose(own.slots, memory.slots, atol=1e-5)
        assert own.fidelity == pytest.approx(memory.fidelity)
    spans = sum(len(memory.spans) for memory in alone)
    assert seen[-1] == (spans, spans)
    assert len(seen) < spans
    assert engine.compress_many([]) == []
    with pytest.raises(InputError, match="needs a name"):
        engine.compress_many(texts, names=["a"])


def test_spans_of_one_length_share_a_pass_whatever_text_they_come_from(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icae.decode.torch.TorchRuntime.encoded_tokens", 32)
    encode, passes = engine.runtime.encode, []

    def spy(spans: Any, slots: Any) -> Any:
        passes.append([len(ids) for ids in spans])
        return encode(spans, slots)

    monkeypatch.setattr(engine.runtime, "encode", spy)
    ids = tokenize(engine.tokenizer, TEXT)
    text = engine.tokenizer.decode(ids[:20].tolist())  # a whole span of 16 and a tail
    engine.compress_many([text] * 4, verify=False)

    assert passes[:2] == [[16, 16], [16, 16]]
    assert all(16 not in lengths for lengths in passes[2:])


def test_mistakes_with_the_api_say_what_is_wanted(engine: Engine, tmp_path: Path) -> None:
    memory, path = engine.compress(TEXT), tmp_path / "notes.icae"
    for call, wanted, fix in (
        (lambda: engine.ask(path, "Who?"), "a memory", "icae.Memory.load(path)"),
        (lambda: engine.ask("Who?", memory), "a memory", "icae.Memory.load(path)"),
        (lambda: engine.ask_many([(path, "Who?")]), "a text", "read_document(path)"),
        (lambda: engine.reconstruct(str(path)), "a memory", "icae.Memory.load(path)"),
        (lambda: engine.append(path, "more"), "a memory", "icae.Memory.load(path)"),
        (lambda: engine.ask(memory, None), "a question", "the memory first"),
        (lambda: engine.compress(path), "a text", "read_document(path)"),
        (lambda: engine.compress(b"bytes"), "a text", "read_document(path)"),
        (lambda: engine.compress(TEXT, ratio="4"), "a ratio", "such as 4"),
        (lambda: engine.append(memory, "more", ratio="4x"), "a ratio", "such as 4"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.expected == wanted
        assert fix in str(caught.value.fix)
        assert caught.value.got is not None


def test_spans_are_reconstructed_in_the_order_asked_for(engine: Engine) -> None:
    memory = engine.compress(TEXT, ratio=4)
    seen: list[tuple[int, int]] = []

    made = engine.reconstruct(memory, on_progress=lambda *done: seen.append(done))

    assert [r.span for r in made] == list(range(len(memory.spans)))
    assert [len(r.token_ids) for r in made] == [span.tokens for span in memory.spans]
    assert "".join(str(r.original) for r in made) == TEXT
    assert [r.text for r in made] == [engine.tokenizer.decode(list(r.token_ids)) for r in made]
    assert seen[-1] == (len(memory.spans), len(memory.spans))
    assert engine.reconstruct(memory, spans=[3, 0]) == [made[3], made[0]]
    assert engine.reconstruct(memory, spans=[]) == []
    for index in (-1, len(memory.spans)):
        with pytest.raises(InputError, match="no such span") as caught:
            engine.reconstruct(memory, spans=[index])
        assert caught.value.got == str(index)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda engine, _: engine.compress("  \n\t"), "nothing to compress"),
        (lambda engine, _: engine.compress(TEXT, ratio=0.25), "tokens per slot"),
        (lambda engine, _: engine.compress(TEXT, ratio=0), "tokens per slot"),
        (lambda engine, memory: engine.ask(memory, " \n"), "question is blank"),
        (lambda engine, memory: engine.ask_many([(memory, "Who?"), (memory, " ")]), "is blank"),
        (lambda engine, _: engine.ask_text("the thing", ""), "question is blank"),
        (lambda engine, _: engine.ask_text("a", "", history=[("Who?", "Me.")]), "is blank"),
        (lambda engine, _: engine.ask_text(" \n", "the?"), "no text to answer from"),
        (lambda engine, _: engine.ask_many([(" ", "Who?")]), "no text to answer from"),
        (lambda engine, memory: engine.ask_many([(memory, "Who?"), (TEXT * 4, "Who?")]), "window"),
    ],
)
def test_what_says_nothing_or_too_much_is_refused(engine: Engine, use: Any, message: str) -> None:
    memory = engine.compress("the thing", ratio=4)

    with pytest.raises((InputError, ConfigError), match=message):
        use(engine, memory)
