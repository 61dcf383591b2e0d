"""The API on memories whose spans are slots, verbatim tokens, or both."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from icae.engine import Engine
from icae.errors import IncompatibleMemoryError
from icae.memory import Verbatim, hash_token_ids
from icae.model.prompts import tokenize
from word_memories import with_spans

TEXT = "The inner thing is in the thin tin: a thief ran there, and the end is near.\n" * 2
UNICODE = "Fluß – 漢字, e\u0301 and 👩‍👩‍👧🙂🙂 at\u00a0the end 🙂"


def test_fidelity_of_every_token_is_kept_beside_that_of_the_spans(engine: Engine) -> None:
    memory = engine.compress(TEXT, ratio=4)
    fidelity, ids = memory.token_fidelity, tokenize(engine.tokenizer, TEXT)
    assert fidelity is not None
    assert len(fidelity) == memory.tokens
    for span in memory.spans:
        piece = ids[span.token_start : span.token_end]
        (alone,) = engine.runtime.fidelity([span.payload], [piece])
        part = fidelity.part(span.token_start, span.token_end)
        assert span.fidelity == part.share == alone.share
        np.testing.assert_allclose(part.probabilities, alone.probabilities, atol=1.01 / 255)
    assert engine.compress(TEXT, ratio=4, verify=False).token_fidelity is None


@pytest.mark.parametrize("text", [TEXT, UNICODE, "a", " x ", "🙂"])
def test_verbatim_memory_holds_the_tokens_themselves(engine: Engine, text: str) -> None:
    memory = engine.verbatim(text, name="exact")
    ids, (document,) = tokenize(engine.tokenizer, text), memory.documents

    assert "".join(str(memory.span_source(i)) for i in range(len(memory.spans))) == text
    assert memory.verbatim_ids.tolist() == ids.tolist()
    assert {span.kind for span in memory.spans} == {"tokens"}
    assert (document.name, document.token_ids_sha256) == ("exact", hash_token_ids(ids))


def test_verbatim_spans_come_back_exactly_and_without_the_model(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("the model was run")

    memory = engine.verbatim(UNICODE)
    monkeypatch.setattr(engine.runtime, "write_back", fail)
    seen: list[tuple[int, int]] = []

    for kept in (memory, memory.without_source()):
        made = engine.reconstruct(kept, on_progress=lambda *done: seen.append(done))
        assert [r.exact_prefix for r in made] == [1.0] * len(memory.spans)
        ids = [i for r in made for i in r.token_ids]
        assert ids == memory.verbatim_ids.tolist()
        assert engine.tokenizer.decode(ids) == UNICODE
    assert "".join(r.text for r in engine.reconstruct(memory)) == UNICODE
    plain = engine.verbatim(TEXT).without_source()
    assert "".join(r.text for r in engine.reconstruct(plain)) == TEXT
    assert seen[-1] == (len(memory.spans),) * 2


def test_slots_and_verbatim_tokens_are_asked_and_written_back_together(engine: Engine) -> None:
    slots, tokens = engine.compress(TEXT, ratio=4), engine.verbatim(UNICODE, name="b")
    both = slots + tokens + slots

    answer = engine.ask(both, "Who?", max_new_tokens=3)

    assert answer.memory_positions == both.positions == 2 * slots.slot_count + tokens.tokens
    alone = engine.reconstruct(slots)
    made = engine.reconstruct(both, spans=range(len(both.spans)))
    assert [r.token_ids for r in made[: len(slots.spans)]] == [r.token_ids for r in alone]
    assert [r.token_ids for r in made[-len(slots.spans) :]] == [r.token_ids for r in alone]
    assert "".join(r.text for r in made[len(slots.spans) : -len(slots.spans)]) == UNICODE


def test_token_that_the_model_does_not_have_is_refused(engine: Engine) -> None:
    memory = engine.verbatim("the thing")
    spans = [
        dataclasses.replace(span, payload=Verbatim(ids=span.verbatim_ids + 288))
        for span in memory.spans
    ]
    foreign = with_spans(memory, spans)
    for use in (lambda: engine.ask(foreign, "Who?"), lambda: engine.reconstruct(foreign)):
        with pytest.raises(IncompatibleMemoryError, match="base model does not have"):
            use()


def test_slice_is_written_back_without_a_comparison_of_its_ids(engine: Engine) -> None:
    memory = engine.compress(TEXT, ratio=4)
    part = memory.select([1, 2])
    made = engine.reconstruct(part)
    assert [r.token_ids for r in made] == [
        r.token_ids for r in engine.reconstruct(memory, spans=[1, 2])
    ]
    assert [r.exact_prefix for r in made] == [None, None]
    assert "".join(str(r.original) for r in made) == part.documents[0].source
