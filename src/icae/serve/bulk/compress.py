"""One block of documents to one part of the result: the same code wherever it runs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from icae.errors import IcaeError
from icae.memory import Memory, memory_bytes
from icae.serve.bulk.documents import Block, BulkDocument, Rejected, read_block
from icae.serve.bulk.output import BulkFolder

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """What turns texts into memories: `icae.engine.Icae`."""

    def compress_many(
        self, texts: Sequence[str], *, ratio: float, names: Sequence[str], verify: bool
    ) -> list[Memory]:
        """A memory of each text."""
        ...


@dataclass(frozen=True, kw_only=True)
class BlockWork:
    """How blocks are compressed; travels to every worker.

    Attributes:
        output: Folder of the result.
        open_encoder: Loads the model; called once in each worker.
        ratio: Context tokens per slot.
        verify: Whether the fidelity of each span is measured.
        keep_source: Whether the memories keep their text.
    """

    output: str
    open_encoder: Callable[[], Encoder]
    ratio: float
    verify: bool
    keep_source: bool


class BlockWorker:
    """Compresses blocks one after the other, the model loaded once.

    Args:
        work: How.
    """

    def __init__(self, work: BlockWork) -> None:
        self.work, self.encoder = work, work.open_encoder()

    def run(self, block: Block) -> None:
        """Compress a block and write its part, unless it is there."""
        folder = BulkFolder(self.work.output)
        if folder.has(block.index):
            return
        read = read_block(block)
        rows, rejected = self._compress(read.documents)
        folder.write(block.index, rows, [*read.rejected, *rejected])

    def _compress(
        self, documents: Sequence[BulkDocument]
    ) -> tuple[list[Mapping[str, Any]], list[Rejected]]:
        """Rows of the documents; if one fails, each by itself, and that one is rejected."""
        if not documents:
            return [], []
        try:
            return self._rows(documents), []
        except Exception as error:
            log.info("a block is compressed document by document: %s", reason_of(error))
        rows: list[Mapping[str, Any]] = []
        rejected = []
        for document in documents:
            try:
                rows += self._rows([document])
            except Exception as error:
                reason = reason_of(error)
                rejected.append(Rejected(id=document.id, place=document.place, reason=reason))
        return rows, rejected

    def _rows(self, documents: Sequence[BulkDocument]) -> list[Mapping[str, Any]]:
        memories = self.encoder.compress_many(
            [document.text for document in documents],
            ratio=self.work.ratio,
            names=[document.id for document in documents],
            verify=self.work.verify,
        )
        return [self._row(d, memory) for d, memory in zip(documents, memories, strict=True)]

    def _row(self, document: BulkDocument, memory: Memory) -> Mapping[str, Any]:
        kept = memory if self.work.keep_source else memory.without_source()
        return {
            "id": document.id,
            "place": document.place,
            "sha256": hashlib.sha256(document.text.encode("utf-8")).hexdigest(),
            "tokens": memory.tokens,
            "slots": memory.slot_count,
            "fidelity": memory.fidelity,
            "memory": memory_bytes(kept),
        }


def reason_of(error: Exception) -> str:
    """Why a document was rejected, on one line."""
    if isinstance(error, IcaeError):
        return error.message if error.got is None else f"{error.message} ({error.got})"
    return " ".join(f"{type(error).__name__}: {error}".split())
