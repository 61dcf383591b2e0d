"""What is measured on: the model in each runtime, one document of the repository, its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from icae import Memory
from icae import engine as api
from icae.config.spans import plan_spans
from icae.decode.prefix import Prefix, Request
from icae.decode.reader import Reader
from icae.memory import Verbatim
from icae.model.prompts import tokenize
from icae.opening import open_llamacpp

DOCUMENT = Path(__file__).parents[2] / "examples" / "pep-0347.txt"
RATIO = 4.0
QUESTION = "What is the first step of the migration procedure?"
NO_STOP: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured; `make bench` takes these, ``--full`` and ``--quick`` others.

    Attributes:
        document: Tokens of the document.
        written: Tokens written when decoding is timed.
        batch: Rows of a batch.
        batch_repeats: Repeats of batches.
        questions: Numbers of questions on one document.
        answer: Tokens of each answer there, in the latency table and for parity.
        long: Tokens of the documents whose compression is timed for growth.
        latency: (rows, tokens) of the latency table.
        parity: Questions put to both runtimes.
    """

    document: int = 2048
    written: int = 32
    batch: int = 8
    batch_repeats: int = 1
    questions: tuple[int, ...] = (1, 4)
    answer: int = 16
    long: tuple[int, ...] = (12_500, 25_000, 100_000)
    latency: tuple[tuple[int, int], ...] = ((2, 2048), (2, 512), (8, 512))
    parity: int = 50


FULL = Sizes(
    batch_repeats=3,
    questions=(1, 2, 4, 8),
    long=(12_500, 25_000, 50_000, 100_000),
    latency=((4, 2048), (4, 512), (16, 512)),
)

QUICK = Sizes(
    document=256,
    written=4,
    batch=2,
    questions=(1, 2),
    answer=3,
    long=(256, 512),
    latency=((2, 128),),
    parity=3,
)


class Setting:
    """Everything that is measured on, loaded when first used.

    Args:
        sizes: How much is measured.
        folder: Where the memory file goes.
        dtype: Precision of the torch runtime.
    """

    def __init__(self, sizes: Sizes, folder: Path, dtype: str) -> None:
        self.sizes, self.folder, self.dtype = sizes, folder, dtype

    @cached_property
    def engine(self) -> api.Engine:
        return api.load(device="cpu", dtype=self.dtype)

    @cached_property
    def llama(self) -> Reader:
        return open_llamacpp()

    @property
    def readers(self) -> dict[str, Reader]:
        return {"torch": self.engine, "llamacpp": self.llama}

    @cached_property
    def ids(self) -> Any:
        """Token ids of the document, repeated as often as needed."""
        ids = tokenize(self.engine.tokenizer, DOCUMENT.read_text(encoding="utf-8"))
        return np.tile(ids, -(-max(self.sizes.long) // len(ids)))

    def text(self, tokens: int) -> str:
        """A text of about that many tokens."""
        return str(self.engine.tokenizer.decode(self.ids[:tokens].tolist()))

    def document(self, length: int, number: int = 0) -> Any:
        """Token ids of one of several documents of a length; no two are the same."""
        return np.roll(self.ids, -7 * number)[:length]

    def encode(self, documents: Sequence[Any]) -> list[Prefix]:
        """Memories of documents, as the decoder reads them."""
        spans, layouts = [], []
        for ids in documents:
            length = self.engine.config.span_length
            plans = plan_spans(len(ids), span_length=length, ratio=RATIO)
            spans += [ids[p.token_start : p.token_end] for p in plans]
            layouts.append([(p.length, p.slots) for p in plans])
        counts = [slots for layout in layouts for _, slots in layout]
        made = []
        for part in self.engine.runtime.batches([len(ids) for ids in spans]):
            made += self.engine.runtime.encode(spans[part], counts[part])
        prefixes, start = [], 0
        for layout in layouts:
            parts = tuple(made[start : start + len(layout)])
            prefixes.append(Prefix(parts=parts, spans=tuple(layout), objective="ft"))
            start += len(layout)
        return prefixes

    @staticmethod
    def raw(ids: Any) -> Prefix:
        """The document itself in front of the prompt, token for token."""
        part = Verbatim(ids=ids)
        return Prefix(parts=(part,), spans=((len(ids), len(ids)),), objective="ft")

    @cached_property
    def prefix(self) -> Prefix:
        return self.encode([self.document(self.sizes.document)])[0]

    @cached_property
    def prompt(self) -> Any:
        from icae.model.prompts import render_prompt

        return render_prompt(self.engine.tokenizer, QUESTION)

    @cached_property
    def memory(self) -> Memory:
        return self.engine.compress(self.text(self.sizes.document), ratio=RATIO, verify=False)

    @cached_property
    def memory_file(self) -> Path:
        path = self.folder / "document.icae"
        self.memory.save(path)
        return path


def forget(reader: Reader) -> None:
    """Let a runtime keep nothing of what is measured next."""
    reader.decoder.generate(None, np.array([0]), max_new_tokens=1, stop_ids=NO_STOP)


def requests(prefixes: Sequence[Prefix], prompt: Any) -> list[Request]:
    """One question to each."""
    return [Request(prefix=prefix, prompt_ids=prompt) for prefix in prefixes]
