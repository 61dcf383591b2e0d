"""What the decoder gets in place of a span: one class for each form that it can have.

A form says what the decoder reads, how many decoder positions that takes, and what a file keeps.
Keys and values are in `icae.memory.key_values`, all forms by name in `icae.memory.forms`.

Shapes: K slots, D hidden, N tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, TypeVar

import numpy as np

from icae.config.parsing import check
from icae.config.types import FloatArray, SpanKind, TokenIds
from icae.errors import MemoryFileError
from icae.memory.bfloat16 import from_bfloat16_bits, to_bfloat16_bits
from icae.memory.checks import ByValue, check_array
from icae.memory.container import Buffer, Description
from icae.memory.provenance import Provenance

if TYPE_CHECKING:
    from icae.memory.key_values import KeyValueSlots

MAX_TOKEN_ID = 2**32 - 1
"""Largest token id that a memory file can hold."""

_SLOTS_STORED_AS = {"bfloat16": "BF16", "float32": "F32"}

Read = TypeVar("Read", covariant=True)


class PayloadReader(Protocol[Read]):
    """What a runtime does with each form."""

    def read_slots(self, slots_KD: FloatArray) -> Read:
        """Take slots [K, D] as decoder inputs."""
        ...

    def read_tokens(self, token_ids: TokenIds) -> Read:
        """Take token ids [N] as decoder inputs."""
        ...

    def read_key_values(self, slots: KeyValueSlots) -> Read:
        """Take keys, as if at position 0, and values of every layer as already read."""
        ...


class ReadablePayload(ABC):
    """A payload whose content is there: a decoder can read it, and a file keep it.

    Attributes:
        kind: Name of the form.
        row: Name of one of its positions in the keys of a file's header, as in ``slot_count``.
    """

    kind: ClassVar[SpanKind]
    row: ClassVar[str]

    @property
    @abstractmethod
    def positions(self) -> int:
        """Decoder positions that it takes."""

    @abstractmethod
    def read_by(self, reader: PayloadReader[Read]) -> Read:
        """Hand it to the method of the reader for its form."""

    @abstractmethod
    def part(self, start: int, end: int) -> Self:
        """Its decoder positions ``start..end``, end exclusive."""

    @property
    def numbers(self) -> FloatArray:
        """What gradient steps may change, float32, decoder positions first."""
        return np.zeros((self.positions, 0), dtype=np.float32)

    def changed(self, numbers: FloatArray) -> Self:
        """The same with other numbers of that shape, rounded to what a file keeps of them."""
        return self

    def known_by(self, sha256: str) -> None:  # noqa: B027 (most make none)
        """Take its digest from the file where it lies, which was checked: it is not made again."""

    @classmethod
    @abstractmethod
    def gather(cls, payloads: Iterable[Payload], provenance: Provenance) -> Self:
        """All payloads of this form, one after the other, as one."""

    @abstractmethod
    def require_fit(self, provenance: Provenance) -> None:
        """A ConfigError unless it is what that provenance makes."""

    @classmethod
    @abstractmethod
    def tensors(cls, positions: int, provenance: Provenance) -> dict[str, Description]:
        """The tensors that keep one span's payload of so many positions.

        A file keeps those of all spans, one after the other on the first axis, in one.
        """

    @abstractmethod
    def pack(self, provenance: Provenance) -> dict[str, Buffer]:
        """The bytes of its tensors, of one span; a MemoryFileError if a value cannot be stored."""

    @classmethod
    @abstractmethod
    def unpack(cls, data: Mapping[str, Buffer], provenance: Provenance) -> Self:
        """What the bytes of the tensors of one span stand for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings(ByValue, ReadablePayload):
    """Memory slots: one input embedding of the decoder each.

    Attributes:
        slots_KD: float32 [K, D].

    Raises:
        ConfigError: If they are not a finite matrix of float32.
    """

    kind: ClassVar[SpanKind] = "slots"
    row: ClassVar[str] = "slot"

    slots_KD: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        check_array("The slots are not a matrix of float32.", self.slots_KD, np.float32, 2)
        finite_K = np.isfinite(self.slots_KD).all(axis=1)
        bad = f"{int((~finite_K).sum())} of {len(self.slots_KD)} slots"
        check(bool(finite_K.all()), "Some slots are not finite.", bad, "no NaN and no infinity")

    @property
    def positions(self) -> int:
        """Number of slots K."""
        return len(self.slots_KD)

    def read_by(self, reader: PayloadReader[Read]) -> Read:
        """Hand the slots to the reader."""
        return reader.read_slots(self.slots_KD)

    @property
    def numbers(self) -> FloatArray:
        """The slots; a file rounds them as the decoder does when it reads them."""
        return self.slots_KD

    def changed(self, numbers: FloatArray) -> Embeddings:
        """Other slots."""
        return Embeddings(slots_KD=numbers)

    def part(self, start: int, end: int) -> Embeddings:
        """The slots ``start..end``."""
        return Embeddings(slots_KD=self.slots_KD[start:end])

    @classmethod
    def gather(cls, payloads: Iterable[Payload], provenance: Provenance) -> Embeddings:
        """All slots among some payloads, [K, D]; K may be 0."""
        none_KD = np.zeros((0, provenance.hidden_size), dtype=np.float32)
        found = [payload.slots_KD for payload in payloads if isinstance(payload, Embeddings)]
        return Embeddings(slots_KD=np.concatenate(found or [none_KD]))

    def require_fit(self, provenance: Provenance) -> None:
        """A ConfigError unless the slots are as wide as the decoder's embeddings."""
        width, wanted = self.slots_KD.shape[1], provenance.hidden_size
        wanted_is = f"{wanted} (provenance.hidden_size)"
        good = width == wanted
        check(good, "The slots have another width than the decoder.", width, wanted_is)

    @classmethod
    def tensors(cls, positions: int, provenance: Provenance) -> dict[str, Description]:
        """[K, D] in the precision that the provenance names."""
        dtype = _SLOTS_STORED_AS[provenance.slot_dtype]
        return {"slots": (dtype, (positions, provenance.hidden_size))}

    def pack(self, provenance: Provenance) -> dict[str, Buffer]:
        """The slots; as bfloat16 rounded to the nearest, ties to even."""
        if provenance.slot_dtype == "float32":
            return {"slots": self.slots_KD.astype("<f4").tobytes()}
        bits_KD = to_bfloat16_bits(self.slots_KD)
        if not np.isfinite(from_bfloat16_bits(bits_KD)).all():
            raise MemoryFileError(
                "Some slots are too large for bfloat16.",
                got=f"up to {float(np.abs(self.slots_KD).max()):.6g}",
                expected="below 3.39e38",
                fix="Store the slots as float32.",
            )
        return {"slots": bits_KD.tobytes()}

    @classmethod
    def unpack(cls, data: Mapping[str, Buffer], provenance: Provenance) -> Embeddings:
        """The slots as float32, whatever the tensor holds."""
        if provenance.slot_dtype == "float32":
            slots = np.frombuffer(data["slots"], dtype="<f4").astype(np.float32)
        else:
            slots = from_bfloat16_bits(np.frombuffer(data["slots"], dtype="<u2"))
        return cls(slots_KD=slots.reshape(-1, provenance.hidden_size))


@dataclass(frozen=True, kw_only=True, eq=False)
class Verbatim(ByValue, ReadablePayload):
    """The tokens themselves.

    Attributes:
        ids: int64 [N].

    Raises:
        ConfigError: If they are not a list of int64 within 0..`MAX_TOKEN_ID`.
    """

    kind: ClassVar[SpanKind] = "tokens"
    row: ClassVar[str] = "verbatim"

    ids: TokenIds = field(repr=False)

    def __post_init__(self) -> None:
        check_array("The verbatim token ids are not a list of int64.", self.ids, np.int64, 1)
        lowest, highest = int(self.ids.min(initial=0)), int(self.ids.max(initial=0))
        worst = lowest if lowest < 0 else highest
        good = 0 <= worst <= MAX_TOKEN_ID
        check(good, "A verbatim token id is out of range.", worst, f"0..{MAX_TOKEN_ID}")

    @property
    def positions(self) -> int:
        """Number of tokens N."""
        return len(self.ids)

    def read_by(self, reader: PayloadReader[Read]) -> Read:
        """Hand the token ids to the reader."""
        return reader.read_tokens(self.ids)

    def part(self, start: int, end: int) -> Verbatim:
        """The tokens ``start..end``."""
        return Verbatim(ids=self.ids[start:end])

    @classmethod
    def gather(cls, payloads: Iterable[Payload], provenance: Provenance) -> Verbatim:
        """All tokens among some payloads, [N]; N may be 0."""
        found = [payload.ids for payload in payloads if isinstance(payload, Verbatim)]
        return Verbatim(ids=np.concatenate(found or [np.zeros(0, dtype=np.int64)]))

    def require_fit(self, provenance: Provenance) -> None:
        """Token ids are those of any tokenizer."""

    @classmethod
    def tensors(cls, positions: int, provenance: Provenance) -> dict[str, Description]:
        """Token ids [N] as uint32."""
        return {"verbatim_ids": ("U32", (positions,))}

    def pack(self, provenance: Provenance) -> dict[str, Buffer]:
        """The token ids."""
        return {"verbatim_ids": self.ids.astype("<u4").tobytes()}

    @classmethod
    def unpack(cls, data: Mapping[str, Buffer], provenance: Provenance) -> Verbatim:
        """The token ids."""
        return cls(ids=np.frombuffer(data["verbatim_ids"], dtype="<u4").astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Unread:
    """What the header of a file says of a payload whose tensor was not read.

    Attributes:
        kind: Name of its form.
        positions: Decoder positions that it takes.
    """

    kind: SpanKind
    positions: int


Payload = ReadablePayload | Unread
"""What the decoder gets in place of a span, as far as anybody can tell of it."""
