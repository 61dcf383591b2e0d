"""What the decoder gets in place of a span: one class for each form that it can have.

A new form is one class here, and its line in `FORMS`: what the decoder reads and how many
decoder positions that takes; of the forms in `STORED_FORMS` also what a file keeps.

Shapes: K slots, D hidden, N tokens, Y layers, H key-value heads, W head width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self, TypeVar

import numpy as np

from icae.config.parsing import check
from icae.config.types import FloatArray, SpanKind, TokenIds
from icae.errors import MemoryFileError
from icae.memory.bfloat16 import from_bfloat16_bits, to_bfloat16_bits
from icae.memory.checks import check_array
from icae.memory.container import Tensor
from icae.memory.provenance import Provenance

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

    def read_key_values(self, pairs_KY2HW: FloatArray) -> Read:
        """Take keys, as if at position 0, and values of every layer as already read."""
        ...


class Payload(Protocol):
    """What the decoder gets in place of a span, as far as anybody can tell of it."""

    @property
    def kind(self) -> SpanKind:
        """Name of its form."""
        ...

    @property
    def positions(self) -> int:
        """Decoder positions that it takes."""
        ...


class ReadablePayload(ABC):
    """A payload whose content is there: it can be read by a decoder.

    Attributes:
        kind: Name of the form.
    """

    kind: ClassVar[SpanKind]

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

    @classmethod
    @abstractmethod
    def gather(cls, payloads: Iterable[Payload], provenance: Provenance) -> Self:
        """All payloads of this form, one after the other, as one."""


class StoredPayload(ReadablePayload):
    """A payload that can also be written to a file.

    A file keeps all payloads of one form in one tensor, a row for each decoder position.

    Attributes:
        tensor: Name of that tensor.
        row: Name of a row in the keys of a file's header, as in ``slot_count``.
        may_lack_tensor: Whether a file without a row has no such tensor.
    """

    tensor: ClassVar[str]
    row: ClassVar[str]
    may_lack_tensor: ClassVar[bool]

    @classmethod
    @abstractmethod
    def stored(cls, positions: int, provenance: Provenance) -> tuple[str, tuple[int, ...]]:
        """Dtype (of safetensors) and shape of the tensor that keeps as many positions."""

    @abstractmethod
    def pack(self, provenance: Provenance) -> Tensor:
        """The tensor that keeps it.

        Raises:
            MemoryFileError: If a value cannot be stored.
        """

    @classmethod
    @abstractmethod
    def unpack(cls, tensor: Tensor) -> Self:
        """What a tensor of the form keeps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings(StoredPayload):
    """Memory slots: one input embedding of the decoder each.

    Attributes:
        slots_KD: float32 [K, D].

    Raises:
        ConfigError: If they are not a finite matrix of float32.
    """

    kind: ClassVar[SpanKind] = "slots"
    tensor: ClassVar[str] = "slots"
    row: ClassVar[str] = "slot"
    may_lack_tensor: ClassVar[bool] = False

    slots_KD: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        slots_KD = self.slots_KD
        check(
            isinstance(slots_KD, np.ndarray)
            and slots_KD.dtype == np.float32
            and slots_KD.ndim == 2,
            "The slots are not a matrix of float32.",
            f"{getattr(slots_KD, 'dtype', type(slots_KD).__name__)} {np.shape(slots_KD)}",
            "a NumPy array, float32 [K, D]",
        )
        finite_K = np.isfinite(slots_KD).all(axis=1)
        check(
            bool(finite_K.all()),
            "Some slots are not finite.",
            f"{int((~finite_K).sum())} of {len(slots_KD)} slots",
            "no NaN and no infinity",
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Embeddings) and np.array_equal(self.slots_KD, other.slots_KD)

    @property
    def positions(self) -> int:
        """Number of slots K."""
        return len(self.slots_KD)

    def read_by(self, reader: PayloadReader[Read]) -> Read:
        """Hand the slots to the reader."""
        return reader.read_slots(self.slots_KD)

    def part(self, start: int, end: int) -> Embeddings:
        """The slots ``start..end``."""
        return Embeddings(slots_KD=self.slots_KD[start:end])

    @classmethod
    def gather(cls, payloads: Iterable[Payload], provenance: Provenance) -> Embeddings:
        """All slots among some payloads, [K, D]; K may be 0."""
        none_KD = np.zeros((0, provenance.hidden_size), dtype=np.float32)
        found = [payload.slots_KD for payload in payloads if isinstance(payload, Embeddings)]
        return Embeddings(slots_KD=np.concatenate(found or [none_KD]))

    @classmethod
    def stored(cls, positions: int, provenance: Provenance) -> tuple[str, tuple[int, ...]]:
        """[K, D] in the precision that the provenance names."""
        return _SLOTS_STORED_AS[provenance.slot_dtype], (positions, provenance.hidden_size)

    def pack(self, provenance: Provenance) -> Tensor:
        """The slots; as bfloat16 rounded to the nearest, ties to even."""
        dtype, shape = self.stored(self.positions, provenance)
        if dtype == "F32":
            return Tensor(dtype=dtype, shape=shape, data=self.slots_KD.astype("<f4").tobytes())
        bits_KD = to_bfloat16_bits(self.slots_KD)
        if not np.isfinite(from_bfloat16_bits(bits_KD)).all():
            raise MemoryFileError(
                "Some slots are too large for bfloat16.",
                got=f"up to {float(np.abs(self.slots_KD).max()):.6g}",
                expected="below 3.39e38",
                fix="Store the slots as float32.",
            )
        return Tensor(dtype=dtype, shape=shape, data=bits_KD.tobytes())

    @classmethod
    def unpack(cls, tensor: Tensor) -> Embeddings:
        """The slots as float32, whatever the tensor holds."""
        if tensor.dtype == "BF16":
            slots = from_bfloat16_bits(np.frombuffer(tensor.data, dtype="<u2"))
        else:
            slots = np.frombuffer(tensor.data, dtype="<f4").astype(np.float32)
        return Embeddings(slots_KD=slots.reshape(tensor.shape))


@dataclass(frozen=True, kw_only=True, eq=False)
class Verbatim(StoredPayload):
    """The tokens themselves.

    Attributes:
        ids: int64 [N].

    Raises:
        ConfigError: If they are not a list of int64 within 0..`MAX_TOKEN_ID`.
    """

    kind: ClassVar[SpanKind] = "tokens"
    tensor: ClassVar[str] = "verbatim_ids"
    row: ClassVar[str] = "verbatim"
    may_lack_tensor: ClassVar[bool] = True

    ids: TokenIds = field(repr=False)

    def __post_init__(self) -> None:
        check_array("The verbatim token ids are not a list of int64.", self.ids, np.int64, 1)
        lowest, highest = int(self.ids.min(initial=0)), int(self.ids.max(initial=0))
        check(
            lowest >= 0 and highest <= MAX_TOKEN_ID,
            "A verbatim token id is out of range.",
            lowest if lowest < 0 else highest,
            f"0..{MAX_TOKEN_ID}",
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verbatim) and np.array_equal(self.ids, other.ids)

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

    @classmethod
    def stored(cls, positions: int, provenance: Provenance) -> tuple[str, tuple[int, ...]]:
        """Token ids [N] as uint32."""
        return "U32", (positions,)

    def pack(self, provenance: Provenance) -> Tensor:
        """The token ids."""
        dtype, shape = self.stored(self.positions, provenance)
        return Tensor(dtype=dtype, shape=shape, data=self.ids.astype("<u4").tobytes())

    @classmethod
    def unpack(cls, tensor: Tensor) -> Verbatim:
        """The token ids."""
        return Verbatim(ids=np.frombuffer(tensor.data, dtype="<u4").astype(np.int64))


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyValueSlots(ReadablePayload):
    """Memory slots as keys and values of every layer of the decoder.

    Attributes:
        pairs_KY2HW: Keys, as if at position 0, and values, float32 [K, Y, 2, H, W].

    Raises:
        ConfigError: If they are not finite numbers of that form.
    """

    kind: ClassVar[SpanKind] = "key-values"

    pairs_KY2HW: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        check_array("The keys and values are no float32.", self.pairs_KY2HW, np.float32, 5)
        check(
            self.pairs_KY2HW.shape[2] == 2 and bool(np.isfinite(self.pairs_KY2HW).all()),
            "The keys and values of some slots are damaged.",
            f"{self.pairs_KY2HW.shape}, or NaN or infinity",
            "finite numbers [slots, layers, 2, heads, width]",
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyValueSlots) and np.array_equal(
            self.pairs_KY2HW, other.pairs_KY2HW
        )

    @property
    def positions(self) -> int:
        """Number of slots K."""
        return len(self.pairs_KY2HW)

    def read_by(self, reader: PayloadReader[Read]) -> Read:
        """Hand the keys and values to the reader."""
        return reader.read_key_values(self.pairs_KY2HW)

    def part(self, start: int, end: int) -> KeyValueSlots:
        """Those of the slots ``start..end``."""
        return KeyValueSlots(pairs_KY2HW=self.pairs_KY2HW[start:end])

    @classmethod
    def gather(cls, payloads: Iterable[Payload], provenance: Provenance) -> KeyValueSlots:
        """All keys and values among some payloads, at least one."""
        found = [payload.pairs_KY2HW for payload in payloads if isinstance(payload, KeyValueSlots)]
        return KeyValueSlots(pairs_KY2HW=np.concatenate(found))


@dataclass(frozen=True, kw_only=True)
class Unread:
    """What the header of a file says of a payload whose tensor was not read.

    Attributes:
        kind: Name of its form.
        positions: Decoder positions that it takes.
    """

    kind: SpanKind
    positions: int


STORED_FORMS: dict[SpanKind, type[StoredPayload]] = {
    form.kind: form for form in (Verbatim, Embeddings)
}
"""Forms that a file keeps, in the order of their tensors in it: largest items first."""

FORMS: dict[SpanKind, type[ReadablePayload]] = {**STORED_FORMS, KeyValueSlots.kind: KeyValueSlots}
"""Every form by its name."""
