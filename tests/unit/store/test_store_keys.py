from __future__ import annotations

from dataclasses import replace

import pytest

from icae.store.keys import (
    compressor_settings,
    maker_hash,
    memory_key,
    settings_of,
    text_digest,
)
from word_memories import with_spans

PLAIN = compressor_settings(ratio=4, verify=True)


@pytest.mark.parametrize(
    "change",
    [
        {"base_hash": "x"},
        {"adapter_hash": "x"},
        {"tokenizer_hash": "x"},
        {"layout": "uniform"},
        {"hidden_size": 4},
        {"slot_dtype": "bfloat16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_model_gives_another_key(provenance, change) -> None:
    one, other = provenance(), replace(provenance(), **change)
    assert memory_key("t", one, PLAIN) != memory_key("t", other, PLAIN)
    assert maker_hash(one) != maker_hash(other)


def test_text_and_settings_are_in_the_key_and_names_of_models_are_not(provenance) -> None:
    key = memory_key("t", provenance(), PLAIN)
    assert key != memory_key("u", provenance(), PLAIN)
    assert key != memory_key("t", provenance(), compressor_settings(ratio=8, verify=True))
    renamed = replace(provenance(), base_model="moved", adapter="renamed")
    assert key == memory_key("t", renamed, {"verify": True, "ratio": 4.0})


def test_a_key_never_changes(provenance) -> None:
    # Stores outlive versions: another result here would store everything twice.
    assert memory_key("0" * 64, provenance(), PLAIN) == (
        "fedc210b08fbbd9d28f661aab095b379d20c5042d4840f2bd5b0d3f3dc45766b"
    )


def test_only_a_plain_memory_shows_what_was_asked_of_the_compressor(build, text_of) -> None:
    plain = build(text_of(80))
    assert settings_of(plain, "0") == PLAIN
    first, *rest = plain.spans
    refined = with_spans(plain, (replace(first, refine_steps=5), *rest))
    edited = plain.replace_spans(0, 0, 1, None)
    for other in (edited, refined, plain + plain, plain.without_source()):
        assert settings_of(other, "abc") == {"content": "abc"}


def test_order_of_documents_is_in_the_digest_of_their_text(build) -> None:
    one, two = build("one word"), build("two words")
    assert text_digest(one) == one.documents[0].sha256
    assert text_digest(one + two) != text_digest(two + one)
