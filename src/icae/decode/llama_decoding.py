"""Continuous batching in llama.cpp: answers are written together, and others join between steps.

Each answer has a sequence of the cache. A memory, with the tokens that every prompt begins with, is
read into one of its own, which the answers about it begin with, without a copy; when none is left
its keys and values are kept outside. Prompts are read in one pass with the last tokens of others.
Needs torch where an answer is not written greedily.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from icae.config.types import TokenIds
from icae.decode.batching import POSITIONS_PER_BATCH, Step, most_places
from icae.decode.kept import Kept
from icae.decode.llamacpp.context import BATCH, LlamaContext
from icae.decode.llamacpp.runtime import KV_DTYPES, LlamaCppRuntime, read_runs
from icae.decode.llamacpp.state import Bytes
from icae.decode.prefix import Prefix, Request, common_length
from icae.decode.sampling import Sampler

TOGETHER = 64
"""Most answers written together: as many sequences, and as many for their memories."""

NOTHING: TokenIds = np.zeros(0, dtype=np.int64)


@dataclass(kw_only=True, eq=False)
class _Row:
    """An answer that is being written.

    Attributes:
        sequence: Its sequence of the cache.
        memory: Digest of its memory, or None.
        places: Places of the cache that it takes in the end, its memory not counted.
        left: How many more tokens it may get.
        unread: Tokens to be read next: those of its prompt, or its last one.
        place: Position of the first of these.
    """

    sequence: int
    memory: str | None
    places: int
    left: int
    unread: TokenIds
    place: int
    sampler: Sampler | None


@dataclass(frozen=True, kw_only=True)
class _Front:
    """A memory in a sequence of its own, and the places it takes."""

    sequence: int
    places: int


class LlamaDecoding:
    """Answers that are being written, memories that were read kept; for one thread.

    Args:
        runtime: Runs the decoder.
        stop_ids: Tokens that end an answer.
        kept_bytes: Most bytes of keys and values of memories that are kept outside the cache.
        head: Tokens that prompts begin with: read with a memory, once for all that do.

    Attributes:
        fronts: The memories that were read.
    """

    def __init__(
        self,
        runtime: LlamaCppRuntime,
        stop_ids: Collection[int],
        *,
        kept_bytes: int,
        head: TokenIds = NOTHING,
    ) -> None:
        self._runtime, self._stop_ids = runtime, frozenset(stop_ids)
        self._head = head
        self._rows: dict[int, _Row] = {}
        self._read: dict[str, _Front] = {}
        self.fronts: Kept[Bytes] = Kept(kept_bytes)
        self._context = self._room(POSITIONS_PER_BATCH)
        self._free = list(range(2 * TOGETHER))

    def __len__(self) -> int:
        return len(self._rows)

    def joinable(self, requests: Sequence[tuple[Request, int]], *, share: float = 1.0) -> int:
        """As many as there is room for; see `icae.decode.decoding.Decoding`."""
        rows = [(row.places - row.left, row.left) for row in self._rows.values()]
        fronts = {digest: front.places for digest, front in self._read.items()}
        for count, (request, limit) in enumerate(requests):
            inputs, start = self._sizes(request)
            rows.append((inputs - start, limit))
            if request.prefix is not None:
                fronts.setdefault(request.prefix.digest, start + len(self._head))
            taken = most_places(rows, pads=False) + sum(fronts.values())
            full = len(rows) > share * TOGETHER or taken > share * self._context.places
            if full and len(rows) > 1:
                return count
        return len(requests)

    def join(
        self,
        requests: Mapping[int, tuple[Request, int]],
        samplers: Mapping[int, Sampler | None] | None = None,
    ) -> Step:
        """Begin answers; first tokens come with the next step, where there is a prompt."""
        sizes = [self._sizes(request)[0] + limit for request, limit in requests.values()]
        most = max(sizes) + len(self._head)
        if not self._rows and most > self._context.places:
            larger = self._room(most)
            self._context.close()
            self._context = larger
        try:
            step: dict[int, int] = {}
            for key, (request, limit) in requests.items():
                step |= self._begin(key, request, limit, (samplers or {}).get(key))
        except Exception:
            self.leave(requests)
            raise
        return self._taken(step)

    def step(self) -> Step:
        """One more token of every row."""
        rows = list(self._rows.values())
        lengths = [len(row.unread) for row in rows]
        tokens = np.concatenate([row.unread for row in rows])
        where = np.concatenate([np.arange(row.place, row.place + len(row.unread)) for row in rows])
        owners = np.repeat([row.sequence for row in rows], lengths)
        ends = np.cumsum(lengths)
        found: dict[int, int] = {}
        for at in range(0, len(tokens), BATCH):
            part = slice(at, at + BATCH)
            ending = {
                int(end) - 1 - at: key
                for end, key in zip(ends, self._rows, strict=True)
                if at < end <= at + BATCH
            }
            self._context.read_rows(tokens[part], where[part], owners[part], wanted=list(ending))
            for index, key in ending.items():
                found[key] = self._chosen(self._rows[key].sampler, index)
        for key, row in self._rows.items():
            row.place += len(row.unread)
            row.unread = np.array([found[key]])
        return self._taken(found)

    def leave(self, keys: Collection[int]) -> None:
        """Give rows up."""
        for key in keys:
            if key in self._rows:
                self._release(self._rows.pop(key).sequence)
        wanted = {row.memory for row in self._rows.values()}
        for digest in [digest for digest in self._read if digest not in wanted]:
            self._release(self._read.pop(digest).sequence)

    def _room(self, places: int) -> LlamaContext:
        """An empty cache of so many places."""
        return LlamaContext(
            self._runtime.model,
            places=places,
            sequences=2 * TOGETHER,
            kv_dtype=KV_DTYPES[self._runtime.dtype],
        )

    def _sizes(self, request: Request) -> tuple[int, int]:
        """Decoder inputs before an answer, and how many of them stand for its memory."""
        prompt = len(request.prompt_ids)
        inputs = len(self._runtime.positions(request.prefix, prompt))
        return inputs, 0 if request.prefix is None else inputs - prompt

    def _begin(self, key: int, request: Request, limit: int, sampler: Sampler | None) -> Step:
        """Read the memory that an answer is read from; its first token if there is no prompt."""
        (inputs, start), prefix, prompt_ids = (
            self._sizes(request),
            request.prefix,
            request.prompt_ids,
        )
        row = self._rows[key] = _Row(
            sequence=self._free.pop(),
            memory=None if prefix is None else prefix.digest,
            places=inputs - start + limit,
            left=limit,
            unread=prompt_ids,
            place=start,
            sampler=sampler,
        )
        if prefix is None:
            return {}
        front = self._front(prefix, start)
        if not len(prompt_ids):
            # The logits of its last input are wanted, which are not kept.
            self._context.share(front, row.sequence, end=start - 1)
            runs = self._runtime.form.runs(prefix, NOTHING)
            read_runs(self._context, runs, start - 1, sequence=row.sequence)
            row.unread = np.array([self._chosen(sampler, -1)])
            return {key: int(row.unread[0])}
        # At least one input has to be read, for the logits of the first token.
        known = common_length(prompt_ids[:-1], self._head)
        self._context.share(front, row.sequence, end=start + known)
        row.unread, row.place = prompt_ids[known:], start + known
        return {}

    def _front(self, prefix: Prefix, places: int) -> int:
        """The sequence of a memory and the head of prompts, read if need be."""
        digest = prefix.digest
        if digest not in self._read:
            sequence = self._free.pop()
            self._read[digest] = _Front(sequence=sequence, places=places + len(self._head))
            kept = self.fronts.get(digest)
            if kept is not None:
                self._context.load(sequence, kept)
            else:
                runs = self._runtime.form.runs(prefix, self._head)
                read_runs(self._context, runs, 0, sequence=sequence)
                data = self._context.save(sequence)
                self.fronts.keep(digest, len(data), lambda: data)
        return self._read[digest].sequence

    def _chosen(self, sampler: Sampler | None, index: int) -> int:
        """The next token, from the logits at a place of the last batch."""
        logits_V = self._context.logits(index)
        if sampler is None:
            return int(logits_V.argmax())
        return sampler.choose(torch.from_numpy(logits_V))

    def _taken(self, step: Mapping[int, int]) -> Step:
        """Count the last tokens of rows, and let those go that have ended."""
        for key, token in step.items():
            self._rows[key].left = 0 if token in self._stop_ids else self._rows[key].left - 1
        ended = [key for key in step if self._rows[key].left <= 0]
        if ended:
            self.leave(ended)
        return step

    def _release(self, sequence: int) -> None:
        self._context.forget(sequence)
        self._free.append(sequence)
