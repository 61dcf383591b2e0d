"""Log-probabilities of tokens with their texts, and prompts that stand before their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from icae.decode.sampling import Likely
from icae.serve.answer_models import TokenLogprob, TopLogprob

Told = Sequence[TokenLogprob]


@dataclass(frozen=True, kw_only=True)
class Echo:
    """A prompt: its text, its first token's text as a list of one, and the others where scored."""

    text: str
    first: Sequence[str]
    told: Told


def told(tokenizer: Any, noted: Sequence[Likely], *, length: int | None = None) -> Told:
    """Tokens with their log-probabilities: those that begin within a text of that length."""
    found: list[TokenLogprob] = []
    begin = 0
    for one in noted:
        if length is not None and begin >= length:
            break
        own = _top(tokenizer, one.token, one.logprob)
        top = [_top(tokenizer, token, logprob) for token, logprob in one.top]
        found.append(TokenLogprob(**own.model_dump(), top_logprobs=top))
        begin += len(own.token)
    return found


def _top(tokenizer: Any, token: int, logprob: float) -> TopLogprob:
    text = str(tokenizer.decode([token]))
    whole = None if "\ufffd" in text else list(text.encode())
    return TopLogprob(token=text, logprob=logprob, bytes=whole)
