"""GIST: a context is read into the keys and values of gist tokens, all that later tokens see.

Source: Mu et al. 2023 (arXiv:2304.08467). Gist tokens stand behind a context; the attention
mask hides the context from every token after them, so what those need of it has to pass
through the keys and values of the gist tokens, in every layer.

Here the mask is kept by construction: one pass reads ``[context ; gist tokens]``, and the keys
and values of the gist tokens alone are handed to the pass that reads on. What else differs from
the original: docs/rivals.md. Its layout is ``default``; ``uniform-encoder`` and ``uniform`` are
one here, as keys carry their positions along.

Shape legend: N spans, S places of the longest row, K gist tokens, M objective tokens, H key-value
heads, W head width, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.parsing import check
from icae.config.spans import SpanPlan
from icae.config.types import TokenIds
from icae.model.decoder import DecoderRow, KeyValues, joined, places_of, read
from icae.model.encoder import build_batch, memory_inputs
from icae.model.memory_model import MemoryModel
from icae.model.objectives import DecoderTask
from icae.model.positions import encoder_positions


@dataclass(frozen=True, kw_only=True, eq=False)
class GistMemory:
    """What the decoder reads in place of one context.

    Attributes:
        key_values: Keys and values [1, H, K, W] of its gist tokens in every layer.
        end: Position of what follows.
    """

    key_values: KeyValues
    end: int

    @property
    def places(self) -> int:
        """Gist tokens K."""
        return int(self.key_values[0][0].shape[2])


class GistModel(MemoryModel[KeyValues, GistMemory]):
    """A LoRA that writes gist tokens, and the frozen decoder that reads them; no slot head.

    Raises:
        ConfigError: If objective tokens are to stand before the gist tokens too.
    """

    def __init__(self, decoder: PreTrainedModel, config: ModelConfig, *, seed: int = 0) -> None:
        check(config.framing == "behind", "GIST has one framing.", config.framing, "behind")
        super().__init__(decoder, config, seed=seed)

    def encode_planned(
        self, contexts: Sequence[Sequence[TokenIds]], plans: Sequence[Sequence[SpanPlan]]
    ) -> list[GistMemory]:
        """The gist tokens of each context; each span stands behind the one before it."""
        starts = [start for own in plans for start in self._starts(own)[:-1]]
        made = self.encode_spans([*chain(*contexts)], [p.slots for p in chain(*plans)], starts)
        parts = iter(made)
        return [self.of_spans([next(parts) for _ in own], own) for own in plans]

    def _starts(self, plans: Sequence[SpanPlan]) -> list[int]:
        """Position at which each span begins, and that of what follows the last one."""
        starts = [0]
        for plan in plans:
            places = encoder_positions(self.config.layout, plan.length, plan.slots)
            starts.append(starts[-1] + max(places) + 1)
        return starts

    def encode_spans(
        self, spans: Sequence[TokenIds], slots: Sequence[int], starts: Sequence[int] | None = None
    ) -> list[KeyValues]:
        """Keys and values of the gist tokens of each span, with gradient to the LoRA."""
        batch = build_batch(spans, slots, self.config.layout, self.device, starts=starts)
        inputs_NSD, _ = memory_inputs(self.adapted, self.tokens, batch)
        layers = read(self.adapted, inputs_NSD, batch.positions_BS)
        rows = [
            tuple((keys[row, None], values[row, None]) for keys, values in layers)
            for row in range(len(spans))
        ]
        return [
            places_of(own, len(ids), len(ids) + k)
            for own, ids, k in zip(rows, spans, slots, strict=True)
        ]

    def of_spans(self, parts: Sequence[KeyValues], plans: Sequence[SpanPlan]) -> GistMemory:
        """The gist tokens of all spans."""
        return GistMemory(key_values=joined(parts), end=self._starts(plans)[-1])

    def row(self, memory: GistMemory, task: DecoderTask) -> DecoderRow:
        """``[gist tokens ; objective tokens ; ids]``, at the positions behind the context."""
        inputs_MD = self.markers(task.tokens)
        size = len(inputs_MD) + len(task.input_ids)
        return DecoderRow(
            ids=task.input_ids,
            positions=range(memory.end, memory.end + size),
            scored=slice(size - task.labels, size),
            inputs_FD=inputs_MD,
            past=memory.key_values,
        )
