from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icae.engine import Engine
from icae.errors import InputError
from icae.memory import Memory, hash_token_ids
from icae.model.prompts import tokenize

TEXT = "The inner thing is in the thin tin: a thief ran there, and the end is near.\n" * 2
MORE = "Then 17 others came in the rain."


def sources(memory: Memory, document: int = 0) -> str:
    return "".join(str(memory.span_source(i)) for i in memory.span_range(document))


def assert_is_the_memory_of(engine: Engine, memory: Memory, text: str, document: int = 0) -> None:
    """Tokens, digests and measured fidelity are those of the text, whatever the spans."""
    described = memory.documents[document]
    ids = tokenize(engine.tokenizer, text)
    assert described.source == sources(memory, document) == text
    assert described.tokens == len(ids)
    assert described.token_ids_sha256 == hash_token_ids(ids)
    for span in described.spans:
        piece = ids[span.token_start : span.token_end]
        assert span.tokens <= engine.config.span_length
        if span.kind == "tokens":
            assert span.verbatim_ids.tolist() == piece.tolist()
        else:
            (alone,) = engine.runtime.encode([piece], [span.slots])
            np.testing.assert_allclose(span.slots_KD, alone.slots_KD, atol=1e-5, rtol=1e-5)


def test_appended_text_leaves_all_whole_spans_as_they_are(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXT + "It"
    memory = engine.compress(text, ratio=4)
    assert memory.spans[-1].tokens < 16
    encoded: list[int] = []
    encode = engine.runtime.encode

    def counted(spans: Any, slots: Any) -> Any:
        encoded.extend(map(len, spans))
        return encode(spans, slots)

    with monkeypatch.context() as patch:
        patch.setattr(engine.runtime, "encode", counted)
        longer = engine.append(memory, MORE)

    assert_is_the_memory_of(engine, longer, text + MORE)
    untouched = len(memory.spans) - 1
    assert longer.spans[:untouched] == memory.spans[:untouched]
    assert longer.token_fidelity is not None
    assert {span.ratio for span in longer.spans} == {4.0}
    assert sum(encoded) <= 16 + engine.count_tokens(MORE)


def test_text_is_appended_to_the_document_named(engine: Engine) -> None:
    both = engine.compress(TEXT, ratio=4) + engine.compress(MORE, ratio=2, name="b")

    longer = engine.append(both, " And on.", document=0)

    assert_is_the_memory_of(engine, longer, TEXT + " And on.", 0)
    assert_is_the_memory_of(engine, longer, MORE, 1)
    assert longer.documents[1] == both.documents[1]
    assert engine.append(both, "!").documents[0] == both.documents[0]


def test_verbatim_text_stays_verbatim_and_only_the_rest_is_compressed(engine: Engine) -> None:
    memory = engine.verbatim(TEXT)
    longer = engine.append(memory, MORE, ratio=2)
    assert_is_the_memory_of(engine, longer, TEXT + MORE)
    assert longer.spans[: len(memory.spans)] == memory.spans
    assert {(s.kind, s.ratio) for s in longer.spans[len(memory.spans) :]} == {("slots", 2.0)}

    at = TEXT.index("thief")
    changed = engine.replace(memory, at, at + 5, "goat")
    assert_is_the_memory_of(engine, changed, TEXT.replace("thief", "goat", 1))
    assert {span.kind for span in changed.spans} == {"tokens"}


def test_deleting_characters_encodes_the_spans_at_the_borders_again(engine: Engine) -> None:
    memory = engine.compress(TEXT * 2, ratio=4)
    start, end = memory.spans[1].char_start + 3, memory.spans[4].char_end - 2

    shorter = engine.delete(memory, start, end)

    text = TEXT * 2
    assert_is_the_memory_of(engine, shorter, text[:start] + text[end:])
    assert shorter.spans[0] == memory.spans[0]
    assert shorter.spans[-1].payload == memory.spans[-1].payload


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.data(),
    kind=st.sampled_from(["slots", "tokens"]),
    text=st.text(alphabet="ab the\n🙂é1", max_size=30),
)
def test_any_edit_gives_the_memory_of_the_edited_text(
    engine: Engine, data: st.DataObject, kind: str, text: str
) -> None:
    old = "the a\n🙂é " * 6
    memory = engine.compress(old, ratio=4) if kind == "slots" else engine.verbatim(old)
    start = data.draw(st.integers(0, len(old)))
    end = data.draw(st.integers(start, len(old)))
    new = old[:start] + text + old[end:]
    if not new.strip():
        return
    assert_is_the_memory_of(engine, engine.replace(memory, start, end, text), new)


def test_slice_without_known_ids_is_edited_by_its_spans(engine: Engine) -> None:
    # The second is cut so that only blanks are left of its first span.
    for text, cut, gone in ((TEXT * 2, (30, 90), 5), ("the the the the   " * 4, (0, 40), 15)):
        part = engine.compress(text, ratio=4).slice(*cut)
        source = str(part.documents[0].source)
        longer, shorter = engine.append(part, MORE), engine.delete(part, 0, gone)
        assert longer.documents[0].source == sources(longer) == source + MORE
        assert shorter.documents[0].source == sources(shorter) == source[gone:]
        assert longer.documents[0].token_ids_sha256 is None


REFUSED: list[tuple[Callable[[Engine, Memory], object], str]] = [
    (lambda engine, memory: engine.delete(memory, 0, len(TEXT)), "would be left"),
    (lambda engine, memory: engine.replace(memory, 0, len(TEXT), " \n"), "would be left"),
    (lambda engine, memory: engine.append(memory, ""), "nothing to append"),
    (lambda engine, memory: engine.delete(memory, -1, 3), "no such characters"),
    (lambda engine, memory: engine.delete(memory, 4, 3), "no such characters"),
    (lambda engine, memory: engine.delete(memory, 0, len(TEXT) + 1), "no such characters"),
    (lambda engine, memory: engine.append(memory, "x", document=1), "no such document"),
    (lambda engine, memory: engine.append(memory.without_source(), "x"), "no source text"),
]


@pytest.mark.parametrize(("edit", "message"), REFUSED)
def test_edit_that_is_not_possible_is_refused(
    engine: Engine, edit: Callable[[Engine, Memory], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        edit(engine, engine.compress(TEXT, ratio=4))
