"""Old turns that become memory: from the cache where it holds them, else from their text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from icae.compression import living
from icae.decode.conversation import Conversation
from icae.decode.prefix import Prefix, ReadSoFar
from icae.engine import Engine
from icae.memory import KeyValueSlots
from icae.model.decoder import joined, places_of, read
from icae.model.key_values import KeyValueModel
from icae.model.prompts import render_prompt, tokenize, tokenize_with_offsets
from mixed_prefix import KEY_VALUES

TEXT = "The inner thing is in the thin tin: a thief ran there.\n"
TURNS = [("Who ran there?", "the thief"), ("Why?", "a tin"), ("In the end?", "near")]


@pytest.fixture
def engine(build_engine: Callable[..., Engine]) -> Engine:
    return build_engine(**KEY_VALUES)


def talk(engine: Engine, *, keep_turns: int = 1) -> Conversation:
    """A conversation whose turns were read, without an answer of its own."""
    documents = engine.compress(TEXT, ratio=4)
    told = Conversation(reader=engine, documents=documents, keep_turns=keep_turns)
    told.history = list(TURNS)
    engine.ask(documents, "So?", history=TURNS, max_new_tokens=1)
    return told


def folded_ids(engine: Engine, count: int) -> Any:
    """Tokens of the first turns, as the prompt has them."""
    longer = render_prompt(engine.tokenizer, "Where?", history=TURNS)
    shorter = render_prompt(engine.tokenizer, "Where?", history=TURNS[count:])
    assert np.array_equal(longer[len(longer) - len(shorter) :], shorter)
    return longer[: len(longer) - len(shorter)]


@torch.no_grad()
def test_memory_tokens_attend_to_what_the_decoder_made_of_the_turns(engine: Engine) -> None:
    told = talk(engine)
    told.compact("Where?")
    ids, model = folded_ids(engine, 2), engine.runtime.model
    assert isinstance(model, KeyValueModel)
    # The same by hand: the decoder reads all of it once more.
    prompt_ids = render_prompt(engine.tokenizer, "Where?", history=TURNS)
    form, prefix = engine.runtime.form, Prefix.of_memory(told.documents, "ft")
    inputs = [form.inputs(prefix), engine.runtime.read_tokens(prompt_ids)]
    inputs_1SD = torch.cat(inputs)[None]
    before = form.past_places(prefix)
    places_1S = torch.arange(before, before + inputs_1SD.shape[1])[None]
    seen = read(model.decoder, inputs_1SD, places_1S, past=form.past(prefix))
    start = before + engine.config.objective_tokens
    assert told.older is not None
    for span in told.older.spans:
        first = start + span.token_start
        own = model.place(places_of(seen, first, first + span.tokens), [-first] * span.tokens)
        piece = ids[span.token_start : span.token_end]
        # What stands first is read as the encoder reads it.
        embeds_11D = engine.runtime.read_tokens(piece[:1])[None]
        alone = read(model.decoder, embeds_11D, torch.zeros(1, 1, dtype=torch.long))
        own = joined([alone, places_of(own, 1, span.tokens)])
        (made,) = model.encode_spans([piece], [span.positions], [own])
        assert isinstance(span.payload, KeyValueSlots)
        found_KY2HW = torch.from_numpy(span.payload.pairs_KY2HW)
        for layer, pair in enumerate(made):
            wanted_2KHW = torch.cat(pair).transpose(1, 2)
            # Slots are stored in 8 bits.
            bound = float(wanted_2KHW.abs().max()) / 100
            found_2KHW = found_KY2HW[:, layer].transpose(0, 1)
            torch.testing.assert_close(found_2KHW, wanted_2KHW, atol=bound, rtol=0.0)


def test_a_span_that_nothing_stands_before_is_encoded_as_the_encoder_itself_reads_it(
    engine: Engine,
) -> None:
    model, ids = engine.runtime.model, tokenize(engine.tokenizer, TEXT)[:13]
    assert isinstance(model, KeyValueModel)
    with torch.no_grad():
        inputs_1LD = engine.runtime.read_tokens(ids)[None]
        seen = read(model.decoder, inputs_1LD, torch.arange(13)[None])
        short = places_of(seen, 0, 5)
        alone = [model.encode_spans([own], [k])[0] for own, k in ((ids, 4), (ids[:5], 2))]
        together = model.encode_spans([ids, ids[:5]], [4, 2], [seen, short])
    for one, other in zip(alone, together, strict=True):
        for pair, same in zip(one, other, strict=True):
            torch.testing.assert_close(pair, same, atol=1e-4, rtol=1e-4)


def test_what_follows_old_turns_moves_up_and_is_not_read_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = talk(engine)
    base = engine.runtime.model.decoder.base_model
    seen: list[int] = []
    forward = base.forward

    def counting(*args: Any, **options: Any) -> Any:
        seen.append(options["inputs_embeds"].shape[1])
        return forward(*args, **options)

    monkeypatch.setattr(base, "forward", counting)
    told.compact("Where?")
    assert told.older is not None
    assert sum(seen) <= len(told.older.spans), "but for the first token of a span"
    seen.clear()
    assert told.history == TURNS[2:]
    answer = told.ask("Where?", max_new_tokens=1)
    ask_alone = render_prompt(engine.tokenizer, "Where?", history=())
    assert sum(seen) <= len(ask_alone)
    prompt_ids = render_prompt(engine.tokenizer, "Where?", history=TURNS[2:])
    around = engine.config.front + engine.config.objective_tokens
    assert answer.prompt_tokens == told.memory.positions + around + len(prompt_ids)


@torch.no_grad()
def test_keys_that_moved_are_those_of_the_same_text_at_the_new_positions(engine: Engine) -> None:
    told = talk(engine)
    last = engine.runtime.last
    assert last is not None
    old = tuple((keys, values) for keys, values, *_ in last.cache)
    told.compact("Where?")
    now = engine.runtime.last
    assert now is not None
    new = tuple((keys, values) for keys, values, *_ in now.cache)
    prefix = Prefix.of_memory(told.memory, "ft")
    prompt_ids = render_prompt(engine.tokenizer, "Where?", history=told.history)
    wanted = ReadSoFar.of(engine.config, prefix, prompt_ids)
    assert now.read.shared(wanted) == len(now.read) == new[0][0].shape[2]
    kept = len(now.read) - engine.runtime.form.past_places(prefix) - 2
    end = len(old[0][0][0, 0]) - _unlike(engine)
    by = now.read.positions[-1] - last.read.positions[end - 1]
    for turn, (keys, values), (moved, same) in zip(
        engine.runtime.model.turns,  # type: ignore[union-attr]
        places_of(old, end - kept, end),
        places_of(new, len(now.read) - kept, len(now.read)),
        strict=True,
    ):
        torch.testing.assert_close(moved, turn(keys, torch.full((kept,), by)))
        assert torch.equal(same, values)
    past = engine.runtime.form.past(prefix)
    for pair, fresh in zip(places_of(new, 0, past[0][0].shape[2]), past, strict=True):
        torch.testing.assert_close(pair, fresh, atol=1e-5, rtol=1e-5)


def _unlike(engine: Engine) -> int:
    """Tokens at the end of the prompt read before that the next question does not share."""
    asked = [render_prompt(engine.tokenizer, q, history=TURNS) for q in ("So?", "Where?")]
    shortest = min(map(len, asked))
    differing = np.flatnonzero(asked[0][:shortest] != asked[1][:shortest])
    return len(asked[0]) - int(differing[0])


def test_older_turns_keep_their_text_and_grow_at_the_end(engine: Engine) -> None:
    told = talk(engine, keep_turns=2)
    told.compact("Where?")
    first = told.older
    assert first is not None
    said = engine.tokenizer.decode(folded_ids(engine, 1), skip_special_tokens=False)
    assert (first.documents[0].source, first.documents[0].name) == (said, "conversation")
    told.ask("Where?", max_new_tokens=2)
    told.ask("Who?", max_new_tokens=2)
    grown = told.older
    assert grown is not None
    assert grown.spans[: len(first.spans)] == first.spans
    source = grown.documents[0].require_source()
    assert source.startswith(said)
    assert TURNS[1][1] in source
    ids, _ = tokenize_with_offsets(engine.tokenizer, source, control=True)
    assert grown.tokens == len(ids)
    assert grown.positions == sum(-(-span.tokens // 4) for span in grown.spans)


@pytest.mark.parametrize("form", [KEY_VALUES, {}])
def test_older_turns_keep_within_their_positions_and_the_oldest_are_held_most_coarsely(
    build_engine: Callable[..., Engine], form: dict[str, Any]
) -> None:
    engine = build_engine(**form)
    documents = engine.compress(TEXT, ratio=4)
    told = Conversation(reader=engine, documents=documents, keep_turns=0, older_positions=12)
    positions, seen = [], set()
    for number in range(8):
        told.ask(f"The thing {number}?", max_new_tokens=1)
        told.history[-1] = (f"The thing {number}?", "in the thin tin")
        engine.ask(told.memory, "So?", history=told.history, max_new_tokens=1)
        told.compact("Why?")
        assert told.older is not None
        ratios = [span.ratio for span in told.older.spans]
        assert ratios == sorted(ratios, reverse=True)
        seen.update(ratios)
        assert f"thing {number}" in told.older.documents[0].require_source()
        positions.append(told.older.positions)
        if form:
            read = ReadSoFar.of(engine.config, engine.decoder.asked(told.memory), ())
            assert engine.runtime.last is not None
            assert engine.runtime.last.read.shared(read) == len(read)
    assert max(positions) <= 12
    assert min(positions[4:]) > 4
    assert seen == {4.0, 8.0, 16.0}
    assert "thing 0" not in told.older.documents[0].require_source()


def test_a_conversation_needs_no_documents(engine: Engine) -> None:
    told = Conversation(reader=engine, keep_turns=1)
    questions = [f"The thing {number}?" for number in range(4)]
    answers = [told.ask(question, max_new_tokens=2) for question in questions]
    alone = engine.request(None, questions[0])
    assert answers[0].prompt_tokens == len(alone.prompt_ids)
    held = [answer.memory_positions for answer in answers]
    assert held[:2] == [0, 0]
    assert [answer.sources for answer in answers[1:3]] == [(), ("conversation",)]
    assert 0 < held[2] < held[3]
    assert told.memory is told.older is not None
    source = told.older.documents[0].require_source()
    assert [question in source for question in questions] == [True, True, False, False]
    assert told.history[0][0] == questions[2]


def test_turns_that_the_cache_does_not_hold_are_compressed_from_their_text(
    engine: Engine, build_engine: Callable[..., Engine]
) -> None:
    told = talk(engine)
    engine.ask(told.documents, "Something else?", max_new_tokens=1)
    slots = talk(build_engine())
    for conversation in (told, slots):
        text = "User: Who ran there?\nAssistant: the thief\nUser: Why?\nAssistant: a tin\n"
        reader = conversation.reader
        assert isinstance(reader, Engine)
        conversation.compact("Where?")
        assert conversation.older == reader.compress(text, name="conversation")
        older = conversation.older
        conversation.keep_turns = 0
        reader.runtime.last = None
        conversation.compact("Where?")
        more = "User: In the end?\nAssistant: near\n"
        assert conversation.older == living.append(reader.compressor, older, more)
