"""The frozen decoder as a writer of answers, for `icae pwc build --llm self`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from icae.config import ModelConfig
from icae.data.triplets.records import Context, Reply, TripletConfig
from icae.data.triplets.requests import Failures, Request, answer_requests
from icae.decode import prefix
from icae.decode.answering import Answerer
from icae.decode.devices import pick_device, pick_dtype
from icae.decode.torch import TorchRuntime
from icae.model.base import load_decoder, load_tokenizer
from icae.model.base_files import stop_tokens
from icae.model.icae import IcaeModel
from icae.model.prompts import render_full_prompt
from icae.model.self_check import checked_base

BATCH = 32
"""Answers asked of the decoder at once; what a kill can cost."""


class DecoderWriter:
    """The frozen decoder as a writer: it reads the full context and answers, greedily.

    The memory is to make the decoder say what it would say with the text before it. Its own
    answers, where they are any good, are therefore the right targets, and need no service.

    Args:
        answerer: What answers.
        model: Its name, with the hash of its weights.
        max_new_tokens: Most tokens of a reply.
    """

    def __init__(self, answerer: Answerer, model: str, *, max_new_tokens: int) -> None:
        self.model, self.service = model, "decoder"
        self.options: Mapping[str, object]
        self.options = {"decoding": "greedy", "max_new_tokens": max_new_tokens}
        self.asks = 1
        self._answerer, self._max_new_tokens = answerer, max_new_tokens

    @classmethod
    def load(
        cls, base: str, device: str | None, dtype: str | None, *, max_new_tokens: int
    ) -> DecoderWriter:
        """A base model by itself; errors as of `icae.engine.load`."""
        place, tokenizer = pick_device(device), load_tokenizer(base)
        decoder = load_decoder(base, dtype=pick_dtype(dtype, place), device=place)
        weights = checked_base(base, decoder)
        stop = stop_tokens(decoder.generation_config.eos_token_id, tokenizer.eos_token_id)
        # LoRA that was never trained changes nothing.
        runtime = TorchRuntime(IcaeModel(decoder, ModelConfig(lora_rank=1)))
        answerer = Answerer(runtime=runtime, tokenizer=tokenizer, stop_ids=stop)
        return cls(answerer, f"{base}@{weights[:12]}", max_new_tokens=max_new_tokens)

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
            asked = [
                render_full_prompt(self._answerer.tokenizer, one.context.text, one.prompts[0].text)
                for one in batch
            ]
            answers = self._answerer.answer_many(
                [prefix.Request(prefix=None, prompt_ids=ids) for ids in asked],
                memory_positions=[0] * len(batch),
                max_new_tokens=self._max_new_tokens,
            )
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
