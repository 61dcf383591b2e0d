"""Continuous batching in torch: answers are written together, and others join between steps.

The keys and values of memories that were read are kept, so that a memory that is asked
again is not read again.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from icae.decode.batching import POSITIONS_PER_BATCH, ROWS_PER_BATCH, Step, most_places
from icae.decode.kept import Kept
from icae.decode.prefix import Prefix, Request
from icae.decode.sampling import Sampler
from icae.decode.torch import TorchRuntime
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
    """

    def __init__(
        self, runtime: TorchRuntime, stop_ids: Collection[int], *, kept_bytes: int
    ) -> None:
        super().__init__(runtime.model.decoder, frozenset(stop_ids))
        self._runtime = runtime
        self._together = ROWS_PER_BATCH if runtime.stacks else 1
        self._sizes: dict[int, int] = {}
        self.fronts: Kept[KeyValues] = Kept(kept_bytes)

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
            row = self._runtime.row(request, fronts, limit=limit)
            rows[key] = replace(row, sampler=(samplers or {}).get(key))
            sizes[key] = self._size(request, limit)
        step = self.add(rows)
        self._sizes = {key: self._sizes.get(key) or sizes[key] for key in self.keys}
        return step

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
