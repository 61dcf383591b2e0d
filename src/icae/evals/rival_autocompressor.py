"""AutoCompressor as a rival: the frozen decoder behind accumulated summary vectors.

How the rival is trained, and what a frozen decoder means for it: `icae.model.autocompressor`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from icae.config.spans import plan_spans
from icae.config.types import TokenIds
from icae.decode.answering import Answerer
from icae.decode.torch import TorchRuntime
from icae.engine import Icae
from icae.evals.memories import ContextMemory, Tick
from icae.evals.readers import MemoryReader
from icae.model import AutoCompressor


class SummaryEncoder:
    """Makes summary vectors of whole contexts, in forward passes of bounded size.

    Args:
        runtime: Holds the rival.
        model: The same rival.
    """

    def __init__(self, runtime: TorchRuntime, model: AutoCompressor) -> None:
        self.runtime, self.model = runtime, model

    @torch.inference_mode()
    def encode(self, contexts: Sequence[TokenIds], ratio: float, tick: Tick) -> list[ContextMemory]:
        """The summary vectors of each context.

        Args:
            contexts: Token ids of each context.
            ratio: Context tokens per summary vector.
            tick: Called with the tokens of each pass.
        """
        span_length = self.model.config.span_length
        memories: list[ContextMemory] = []
        for part in self.runtime.batches([len(ids) for ids in contexts]):
            plans = [
                plan_spans(len(ids), span_length=span_length, ratio=ratio) for ids in contexts[part]
            ]
            made = self.model.encode_contexts(
                [
                    [ids[p.token_start : p.token_end] for p in own]
                    for ids, own in zip(contexts[part], plans, strict=True)
                ],
                [[p.slots for p in own] for own in plans],
            )
            memories += [
                ContextMemory(
                    slots_KD=slots_KD.float().cpu().numpy(),
                    spans=tuple((p.length, p.slots) for p in own),
                )
                for slots_KD, own in zip(made, plans, strict=True)
            ]
            tick(sum(len(ids) for ids in contexts[part]))
        return memories


class AutoCompressorReader(MemoryReader):
    """Answers behind summary vectors.

    Args:
        engine: Its frozen decoder reads; no adapter has a part in it.
        model: The trained rival, on that decoder.
    """

    def __init__(self, engine: Icae, model: AutoCompressor) -> None:
        super().__init__(engine)
        self.runtime = TorchRuntime(model)
        self.answerer = Answerer(
            runtime=self.runtime, tokenizer=engine.tokenizer, stop_ids=engine.answerer.stop_ids
        )
        self.encoder = SummaryEncoder(self.runtime, model)

    def memories(
        self, contexts: Sequence[TokenIds], ratio: float, tick: Tick
    ) -> list[ContextMemory]:
        """Summary vectors in place of slots."""
        return self.encoder.encode(contexts, ratio, tick)
