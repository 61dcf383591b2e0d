"""Continuous batching in torch: answers are written together, and others join between steps.

The keys and values of memories that were read are kept, so that a memory that is asked
again is not read again; and those of conversations, for their next turn.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from transformers import DynamicCache

from icae.decode.batching import POSITIONS_PER_BATCH, ROWS_PER_BATCH, Step, most_places
from icae.decode.kept import Kept
from icae.decode.prefix import Prefix, ReadSoFar, Request
from icae.decode.sampling import Sampler
from icae.decode.torch import TorchRuntime
from icae.decode.torch_kv import LastRead
from icae.decode.torch_rows import DecodingRows
from icae.model.decoder import KeyValues


class TorchDecoding(DecodingRows):
    """Answers that are being written, memories that were read kept; for one thread.

    Args:
        runtime: Runs the decoder.
        stop_ids: Tokens that end an answer.
        kept_bytes: Most bytes of keys and values of memories that are kept.

    Attributes:
        fronts: The memories that were read.
        told: What was read for requests that have an owner.
    """

    def __init__(
        self, runtime: TorchRuntime, stop_ids: Collection[int], *, kept_bytes: int
    ) -> None:
        super().__init__(runtime.model.decoder, frozenset(stop_ids))
        self._runtime = runtime
        self._together = ROWS_PER_BATCH if runtime.stacks else 1
        self._sizes: dict[int, int] = {}
        self._reads: dict[int, tuple[str, ReadSoFar]] = {}
        self.fronts: Kept[KeyValues] = Kept(kept_bytes)
        self.told: Kept[LastRead] = Kept(kept_bytes)

    def joinable(self, requests: Sequence[tuple[Request, int]], *, share: float = 1.0) -> int:
        """As many as there is room for; see `icae.decode.decoding.Decoding`."""
        rows = [
            (self._sizes[k] - left, left) for k, left in zip(self.keys, self._left, strict=True)
        ]
        for count, (request, limit) in enumerate(requests):
            rows.append((self._size(request, limit) - limit, limit))
            full = (
                len(rows) > share * self._together
                or most_places(rows, pads=True) > share * POSITIONS_PER_BATCH
                or not self._runtime.may_pad(max(map(sum, rows)))
            )
            if full and len(rows) > 1:
                return count
        return len(requests)

    def join(
        self,
        requests: Mapping[int, tuple[Request, int]],
        samplers: Mapping[int, Sampler | None] | None = None,
    ) -> Step:
        """Begin answers, the memories that are not known read together; all give a first token."""
        prefixes = {
            request.prefix.digest: request.prefix
            for request, _ in requests.values()
            if request.prefix is not None
        }
        fronts = self._fronts(prefixes)
        rows, sizes = {}, {}
        for key, (request, limit) in requests.items():
            row = self._runtime.row(request, fronts, limit=limit, front=self._resumed(request))
            rows[key] = replace(row, sampler=(samplers or {}).get(key))
            sizes[key] = self._size(request, limit)
            if request.owner is not None and self._runtime.keeps_all:
                self._reads[key] = (request.owner, self._read(request))
        step = self.add(rows)
        self._sizes = {key: self._sizes.get(key) or sizes[key] for key in self.keys}
        return step

    def last(self, request: Request) -> LastRead | None:
        """Of what was read for the owner of a request that which begins most like it, if any."""
        read = self._read(request)
        own = [last for name, last in self.told if name.rpartition(" ")[0] == request.owner]
        return max(own, key=lambda last: last.read.shared(read), default=None)

    def keep(self, owner: str, last: LastRead, *, instead: LastRead | None = None) -> None:
        """Keep what was read for an owner, in place of another and of what it goes on from."""
        for name, other in [*self.told]:
            begun = name.rpartition(" ")[0] == owner and other.read.shared(last.read)
            if other is instead or begun == len(other.read):
                self.told.drop(name)
        size = _bytes(last.places(len(last.read)))
        self.told.keep(f"{owner} {hash(tuple(last.read.keys))}", size, lambda: last)

    def _resumed(self, request: Request) -> KeyValues | None:
        """What of a request was read before, if more than its memory was."""
        if request.owner is None:
            return None
        last, read = self.last(request), self._read(request)
        # At least one input has to be read, for the logits of the first token.
        shared = 0 if last is None else min(last.read.shared(read), len(read) - 1)
        if last is None or shared <= len(read) - len(request.prompt_ids):
            return None
        return last.places(shared)

    def _read(self, request: Request) -> ReadSoFar:
        return ReadSoFar.of(self._runtime.config, request.prefix, request.prompt_ids)

    def _keep(self, kept: list[int]) -> None:
        """What was read for rows that end is kept, if their requests have an owner."""
        self._join()
        for i in set(range(len(self.keys))) - set(kept):
            owner, read = self._reads.pop(self.keys[i], (None, None))
            if owner is not None and read is not None:
                layers = self.row(i)
                size = layers[0][0].shape[2]  # the last token was not read
                read = ReadSoFar(keys=read.keys[:size], positions=read.positions[:size])
                self.keep(owner, LastRead(cache=DynamicCache(layers), read=read))
        super()._keep(kept)

    def _taken(self, keys: list[int], token_R: Tensor) -> Step:
        for key, token in zip(keys, token_R.tolist(), strict=True):
            if key in self._reads:
                self._reads[key][1].add(token)
        return super()._taken(keys, token_R)

    def _size(self, request: Request, limit: int) -> int:
        return len(self._runtime.positions(request.prefix, len(request.prompt_ids))) + limit

    def _fronts(self, prefixes: Mapping[str, Prefix]) -> dict[str, KeyValues]:
        found = {digest: self.fronts.get(digest) for digest in prefixes}
        fronts = {digest: front for digest, front in found.items() if front is not None}
        unread = [prefix for digest, prefix in prefixes.items() if digest not in fronts]
        if not self._runtime.stacks:
            return {}
        for prefix, front in zip(unread, self._runtime.read_prefixes(unread), strict=True):
            fronts[prefix.digest] = front
            self.fronts.keep(prefix.digest, _bytes(front), functools.partial(_copy, front))
        return fronts


def _copy(front: KeyValues) -> KeyValues:
    """A copy of its own: a row of a batch is a view of the whole batch."""
    return tuple((k.clone(), v.clone()) for k, v in front)


def _bytes(front: KeyValues) -> int:
    return sum(t.numel() * t.element_size() for pair in front for t in pair)
