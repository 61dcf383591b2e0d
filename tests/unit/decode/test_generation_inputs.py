"""A memory goes into `generate` of transformers, and answers as `Engine.ask` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from icae.decode.generation_inputs import generation_inputs
from icae.errors import InputError

TEXT = "The inner thing is in the thin tin: a thief ran there. "
FORMS = {
    "embeddings": {"layout": "default"},
    "framed": {"layout": "uniform-encoder", "framing": "around", "objective_tokens": 2},
    "key-values": {"memory": "key-values", "framing": "between", "objective_tokens": 2},
    "led": {
        "memory": "key-values",
        "framing": "between",
        "objective_tokens": 2,
        "lead_slots": 3,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_generate_answers_as_ask_does(build_engine: Callable[..., Any], form: str) -> None:
    engine = build_engine(**FORMS[form])
    memory = engine.compress(TEXT, ratio=4)

    given = generation_inputs(engine, memory, "Who?")
    model = engine.runtime.model.decoder
    written = model.generate(**given, max_new_tokens=6, do_sample=False, pad_token_id=0)

    prompt = given["input_ids"].shape[1] if form in ("key-values", "led") else 0
    answer = engine.ask(memory, "Who?", max_new_tokens=6)
    new = engine.tokenizer.decode(written[0, prompt:].tolist(), skip_special_tokens=True)
    assert new.startswith(answer.text)
    assert answer.answer_tokens > 0


def test_positions_with_gaps_are_refused(build_engine: Callable[..., Any]) -> None:
    engine = build_engine(layout="uniform")
    with pytest.raises(InputError, match="not consecutive"):
        generation_inputs(engine, engine.compress(TEXT, ratio=4), "Who?")
