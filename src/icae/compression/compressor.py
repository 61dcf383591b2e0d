"""From text to memory: tokenize, cut into spans, encode each, measure what is held.

A text is cut into verbatim spans; encoding gives them slots in place of their tokens.

Shapes: L context tokens of a span, K slots, D hidden.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icae.config import ModelConfig
from icae.config.types import TokenIds
from icae.decode.prefix import Prefix
from icae.decode.torch import TorchRuntime
from icae.errors import InputError
from icae.memory import Memory, MemoryDocument, Provenance, Span, TokenFidelity, hash_token_ids
from icae.memory.payload import ReadablePayload
from icae.model.objectives import PROBE_FOUND, PROBE_GIVEN, DecoderTask, draw_probes
from icae.model.prompts import tokenize_with_offsets

OnProgress = Callable[[int, int], None]
"""Called with (spans done, spans in all)."""


@dataclass(frozen=True, kw_only=True)
class TokenizedText:
    """A text and its tokens.

    Attributes:
        text: The text.
        ids: Its token ids, int64.
        offsets: Character at which each token starts.
    """

    text: str
    ids: TokenIds
    offsets: Sequence[int]

    def part(self, first: int, end: int, *, char_start: int, char_end: int) -> TokenizedText:
        """A stretch of tokens and characters of the text, with the tokens it has in the whole."""
        length = char_end - char_start
        inside = [min(max(at - char_start, 0), length) for at in self.offsets[first:end]]
        return TokenizedText(
            text=self.text[char_start:char_end], ids=self.ids[first:end], offsets=inside
        )


def verbatim_spans(
    ids: TokenIds, config: ModelConfig, *, edges: Sequence[int] | None = None
) -> list[Span]:
    """Cut token ids [L] into spans that hold them as they are.

    Edges are the characters at which each token starts, and where the last one ends, [L + 1];
    None for tokens without a text.
    """
    edges = [0] * (len(ids) + 1) if edges is None else edges
    return [
        Span.verbatim(
            ids[plan.token_start : plan.token_end],
            token_start=plan.token_start,
            char_start=edges[plan.token_start],
            char_end=edges[plan.token_end],
        )
        for plan in config.plan(len(ids), 1)
    ]


@dataclass(frozen=True, kw_only=True)
class Compressor:
    """Makes memories of texts.

    Attributes:
        runtime: Encodes spans and measures how they are held.
        tokenizer: The base model's tokenizer.
        provenance: What the memories are keyed by.
        config: Architecture of the adapter.
    """

    runtime: TorchRuntime
    tokenizer: Any
    provenance: Provenance
    config: ModelConfig

    def tokenize(self, text: str) -> TokenizedText:
        """Tokenize a text.

        Raises:
            InputError: If the text is blank or not valid Unicode.
        """
        begin = self.config.asking.begin
        ids, offsets = tokenize_with_offsets(self.tokenizer, text, begin)
        return TokenizedText(text=text, ids=ids, offsets=offsets)

    def compress(
        self, text: TokenizedText, *, ratio: float, name: str, verify: bool = True
    ) -> Memory:
        """Make a memory of slots of one text; see `compress_many`."""
        (memory,) = self.compress_many([text], ratio=ratio, names=[name], verify=verify)
        return memory

    def compress_many(
        self,
        texts: Sequence[TokenizedText],
        *,
        ratio: float,
        names: Sequence[str],
        verify: bool = True,
        on_progress: OnProgress | None = None,
    ) -> list[Memory]:
        """Make a memory of each of several texts; see `icae.engine.Engine.compress_many`.

        Verified is how faithfully each token is held, and of keys and values what a memory gives
        when it is asked: one more forward pass each.
        """
        cut = [self.cut(text) for text in texts]
        spans = [span for own in cut for span in own]
        made = iter(self.encode(spans, ratio=ratio, verify=verify, on_progress=on_progress))
        memories = [
            self.memory(text, list(itertools.islice(made, len(own))), name=name)
            for text, own, name in zip(texts, cut, names, strict=True)
        ]
        if not verify:
            return memories
        return [
            self.with_recall(own, {0: text.ids}) for own, text in zip(memories, texts, strict=True)
        ]

    def with_recall(self, memory: Memory, ids: Mapping[int, TokenIds]) -> Memory:
        """A memory with the recall of its spans of keys and values: a seeded probe of each.

        Left as it is where there are none, or it is longer than the decoder reads.

        Args:
            memory: The memory, which is read as a whole.
            ids: Index -> token ids of the documents whose spans are asked.
        """
        probes = self.probes(memory, ids)
        if not probes:
            return memory
        found = self.runtime.recall(self.runtime.asked(memory), list(probes.values()))
        return recalled(memory, probes, found)

    def probes(self, memory: Memory, ids: Mapping[int, TokenIds]) -> dict[int, DecoderTask]:
        """Index of a span -> what it is asked for its recall; see `with_recall`."""
        probes: dict[int, DecoderTask] = {}
        for i, (document, span) in enumerate(zip(memory.document_of, memory.spans, strict=True)):
            if span.kind == "key-values" and document in ids:
                own = ids[document][span.token_start : span.token_end]
                for task in draw_probes(np.random.default_rng(span.token_start), own, 1):
                    probes[i] = task
        prefix = self.runtime.asked(memory)
        longest = len(self.runtime.positions(prefix, PROBE_GIVEN[1] + PROBE_FOUND))
        return probes if longest <= self.runtime.context_window else {}

    def cut(self, text: TokenizedText) -> list[Span]:
        """Cut a text into verbatim spans, each ending where the next one begins."""
        edges = [0, *text.offsets[1:], len(text.text)]
        return verbatim_spans(text.ids, self.config, edges=edges)

    def encode(
        self,
        spans: Sequence[Span],
        *,
        ratio: float,
        verify: bool = True,
        on_progress: OnProgress | None = None,
    ) -> list[Span]:
        """Encode verbatim spans at one ratio, several in one forward pass.

        Raises:
            ConfigError: If the ratio is out of range.
        """
        made: dict[int, Span] = {}
        for part in self.runtime.passes([(s.token_start, s.token_end) for s in spans]):
            ids = [spans[i].verbatim_ids for i in part]
            slots = [self.config.spans.count(len(own), ratio) for own in ids]
            encoded = self.runtime.encode(ids, slots)
            own = [
                unmeasured(spans[i], payload, float(ratio))
                for i, payload in zip(part, encoded, strict=True)
            ]
            made.update(zip(part, self.measured(own, ids) if verify else own, strict=True))
            if on_progress is not None:
                on_progress(len(made), len(spans))
        return [made[i] for i in range(len(spans))]

    def require_alone(
        self, what: str, *, fix: str = "Compress the whole text at one ratio."
    ) -> None:
        """Refuse what rests on spans that stand alone.

        Raises:
            InputError: If spans of this adapter see those before them.
        """
        if self.config.previous_spans:
            raise InputError(
                f"{what} needs spans that stand alone.",
                got=f"an adapter of model.previous_spans {self.config.previous_spans}: each span "
                "rests on those before it",
                expected="an adapter of model.previous_spans 0",
                fix=fix,
            )

    def measured(self, spans: Sequence[Span], ids: Sequence[TokenIds]) -> list[Span]:
        """Spans of slots, of these token ids, with their fidelity under teacher forcing."""
        found: list[TokenFidelity] = []
        for part in self.runtime.batches([span.tokens for span in spans]):
            found += self.runtime.fidelity([readable(span) for span in spans[part]], ids[part])
        return [
            replace(span, fidelity=own.share, token_fidelity=own, written_back=None)
            for span, own in zip(spans, found, strict=True)
        ]

    def written_back(self, spans: Sequence[Span], ids: Sequence[TokenIds]) -> list[Span]:
        """Spans of slots, of these ids, with whether the decoder, writing freely, gives them back.

        Only those are tried whose every token is reproduced under teacher forcing; of
        others it is known that free writing goes wrong.
        """
        tried = [replace(span, written_back=False) for span in spans]
        faultless = [i for i, span in enumerate(spans) if span.fidelity == 1.0]
        prefixes = [
            Prefix.of_payload(readable(spans[i]), tokens=spans[i].tokens, objective="ae")
            for i in faultless
        ]
        for i, found in zip(faultless, self.runtime.write_back(prefixes), strict=True):
            tried[i] = replace(spans[i], written_back=np.array_equal(found, ids[i]))
        return tried

    def verbatim(self, text: TokenizedText, *, name: str) -> Memory:
        """Make a memory of verbatim tokens, without slots."""
        return self.memory(text, self.cut(text), name=name)

    def memory(self, text: TokenizedText, spans: Sequence[Span], *, name: str) -> Memory:
        """A memory of one document: a text, and what its tokens became, in order."""
        document = MemoryDocument.of_text(
            text.text, spans, name=name, token_ids_sha256=hash_token_ids(text.ids)
        )
        return Memory(documents=(document,), provenance=self.provenance)


def with_spans(memory: Memory, changed: Mapping[int, Span]) -> Memory:
    """A memory with some spans, by their indices, in place of its own."""
    spans = iter([changed.get(i, span) for i, span in enumerate(memory.spans)])
    return memory.with_documents(
        replace(document, spans=tuple(itertools.islice(spans, len(document.spans))))
        for document in memory.documents
    )


def recalled(memory: Memory, asked: Iterable[int], found: Iterable[float]) -> Memory:
    """A memory with the recall that was found of some spans, by their indices."""
    spans = zip(asked, found, strict=True)
    return with_spans(memory, {i: replace(memory.spans[i], recall=own) for i, own in spans})


def unmeasured(span: Span, payload: ReadablePayload, ratio: float) -> Span:
    """A verbatim span with slots in place of its tokens; how well they hold it is not known."""
    return replace(span, payload=payload, ratio=ratio, fidelity=None, token_fidelity=None)


def readable(span: Span) -> ReadablePayload:
    """The slots of a span that was encoded or read whole."""
    assert isinstance(span.payload, ReadablePayload)
    return span.payload
