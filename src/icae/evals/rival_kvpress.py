"""kvpress as installed: the decoder reads the whole context, then drops keys and values.

The package asks for an older transformers than this project pins, so it is installed apart
(``pip install --no-deps kvpress``); what it misses there, the cache positions, is given here.

Shape legend: P places kept, R rows, T scored tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import DynamicCache

from icae.config.types import Answer, TokenIds
from icae.decode.prefix import Request
from icae.decode.torch_rows import Row
from icae.engine import Icae
from icae.errors import MissingDependencyError
from icae.evals.fronts import answer_rows
from icae.evals.memories import STEP_COST, Tick
from icae.evals.questions import Question
from icae.evals.readers import Reading, slot_budget
from icae.model import render_full_prompt
from icae.model.decoder import KeyValues, stacked

METHODS = {"kvpress Knorm": "KnormPress", "kvpress expected attention": "ExpectedAttentionPress"}
"""Name in the table -> class of the package; neither looks at the question."""


@dataclass(frozen=True, kw_only=True)
class Pressed(Reading):
    """A context whose keys and values were thinned out.

    Attributes:
        front: What is kept of it.
        rest_ids: The prompt behind the context.
        start: Position of its first token.
    """

    front: KeyValues
    rest_ids: TokenIds
    start: int


class KvPressReader:
    """The frozen decoder behind as many kept places of the context as a memory has slots.

    Args:
        engine: Its decoder reads; no adapter has a part in it.
        method: Name of a class of the package.

    Raises:
        MissingDependencyError: If the package is not installed, or has no such method.
    """

    def __init__(self, engine: Icae, method: str) -> None:
        self.engine = engine
        self._press = _press(method)

    def read(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[Reading]:
        """Read each context once and keep its share of places."""
        assert ratio is not None
        span_length = self.engine.config.span_length
        kept: dict[int, tuple[KeyValues, int]] = {}
        result: list[Reading] = []
        for question in questions:
            budget = slot_budget(question, span_length, ratio)
            prompt_ids, start = self._split(question)
            if question.group not in kept:
                kept[question.group] = (self._read(prompt_ids[:start], budget), start)
                tick(start)
            front, start = kept[question.group]
            result.append(
                Pressed(
                    request=Request(prefix=None, prompt_ids=prompt_ids),
                    context_positions=budget,
                    front=front,
                    rest_ids=prompt_ids[start:],
                    start=start,
                )
            )
        return result

    def _split(self, question: Question) -> tuple[TokenIds, int]:
        """The whole prompt, and how many of its tokens do not depend on what is asked."""
        tokenizer = self.engine.tokenizer
        prompt_ids = render_full_prompt(tokenizer, question.context, question.prompt)
        others = [render_full_prompt(tokenizer, question.context, text) for text in ("A", "1")]
        start = min(_shared(prompt_ids, other) for other in others)
        return prompt_ids, min(start, _shared(*others))

    def _read(self, ids: TokenIds, budget: int) -> KeyValues:
        """Keys and values of the places that the press keeps."""
        model, places = self.engine.runtime.model, torch.arange(len(ids))
        # Half a place more, so that the package's rounding down keeps `budget`.
        self._press.compression_ratio = max(0.0, 1 - (budget + 0.5) / len(ids))
        cache = DynamicCache()
        row = torch.from_numpy(ids)[None].to(model.device)
        places = places.to(model.device)
        with torch.inference_mode(), self._press(model.decoder):
            model.decoder.base_model(
                input_ids=row,
                attention_mask=torch.ones_like(row),
                position_ids=places[None],
                cache_position=places,
                past_key_values=cache,
                use_cache=True,
            )
        return tuple((keys, values) for keys, values, *_ in cache)

    def answer(self, readings: Sequence[Reading], limit: int, tick: Tick) -> list[Answer]:
        """Answers from what was kept, one after another."""
        answers: list[Answer] = []
        for reading in cast(Sequence[Pressed], readings):
            row = Row(
                front=reading.front,
                tail_SD=self.engine.runtime.read_tokens(reading.rest_ids),
                positions=range(reading.start, reading.start + len(reading.rest_ids)),
                limit=limit,
            )
            answers += answer_rows(self.engine, [row], [reading.context_positions])
            tick(STEP_COST * limit)
        return answers

    @torch.inference_mode()
    def losses(
        self, readings: Sequence[Reading], answers: Sequence[TokenIds], tick: Tick
    ) -> list[NDArray[np.float64]]:
        """Losses behind what was kept and the rest of the prompt."""
        model, result = self.engine.runtime.model, []
        for reading, answer_ids in zip(cast(Sequence[Pressed], readings), answers, strict=True):
            ids = np.concatenate([reading.rest_ids, answer_ids])
            cache, mask_RP = stacked([reading.front])
            row = torch.from_numpy(ids)[None].to(model.device)
            places = torch.arange(reading.start, reading.start + len(ids))[None]
            hidden = model.decoder.base_model(
                input_ids=row,
                attention_mask=torch.cat([mask_RP.to(model.device), torch.ones_like(row)], dim=1),
                position_ids=places.to(model.device),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[0, -len(answer_ids) - 1 : -1]
            logits_TV = model.decoder.get_output_embeddings()(hidden).float()
            losses_T = nn.functional.cross_entropy(
                logits_TV, row[0, -len(answer_ids) :], reduction="none"
            )
            result.append(losses_T.double().cpu().numpy())
            tick(len(ids))
        return result


def _shared(one: TokenIds, other: TokenIds) -> int:
    """Length of the common beginning of two prompts."""
    size = min(len(one), len(other))
    different = np.flatnonzero(one[:size] != other[:size])
    return int(different[0]) if len(different) else size


def _press(method: str) -> Any:
    try:
        import kvpress
    except ImportError as error:
        raise MissingDependencyError(
            "kvpress is not installed.",
            fix="pip install --no-deps kvpress 'cachetools<6' 'fire<0.7' termcolor (it asks for "
            "transformers below 5.3, so it cannot be installed with its dependencies)",
        ) from error
    if not hasattr(kvpress, method):
        raise MissingDependencyError(f"kvpress has no {method}.", fix="Install another version.")
    return getattr(kvpress, method)(compression_ratio=0.5)
