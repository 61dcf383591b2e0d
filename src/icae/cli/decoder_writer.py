"""The frozen decoder as a writer of answers, for `icae pwc build --llm self`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from icae.data.triplets.records import Context, Reply, TripletConfig
from icae.data.triplets.requests import Failures, Request, answer_requests
from icae.engine import Engine

BATCH = 32
"""Answers asked of the decoder at once; what a kill can cost."""


class DecoderWriter:
    """The frozen decoder as a writer: it reads the full context and answers, greedily.

    The memory is to make the decoder say what it would say with the text before it. Its own
    answers, where they are any good, are therefore the right targets, and need no service.
    """

    def __init__(self, icae: Engine, *, max_new_tokens: int) -> None:
        made = icae.provenance
        self.model, self.service = f"{made.base_model}@{made.base_hash[:12]}", "decoder"
        self.options: Mapping[str, object]
        self.options = {"decoding": "greedy", "max_new_tokens": max_new_tokens}
        self.asks = 1
        self._icae, self._max_new_tokens = icae, max_new_tokens

    def requests(self, context: Context, config: TripletConfig) -> Sequence[Request]:
        """One request for each prompt."""
        return answer_requests(self, context, config)

    def write(self, requests: Sequence[Request], record: Callable[[Reply], None]) -> Failures:
        """Answer every request, in order: what is done after a stop is a beginning.

        Raises:
            InputError: If a text, prompt and answer do not fit the decoder's window.
        """
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            questions = [(one.context.text, one.prompts[0].text) for one in batch]
            answers = self._icae.ask_many(questions, max_new_tokens=self._max_new_tokens)
            for request, answer in zip(batch, answers, strict=True):
                record(
                    Reply(
                        request=request.id,
                        text=answer.text,
                        finish="stop" if answer.finished else "length",
                        prompt_tokens=answer.prompt_tokens,
                        completion_tokens=answer.answer_tokens,
                        model=self.model,
                    )
                )
        return {}
