"""The arrays of a memory as tensors of its file, and back.

Shapes: K slots, D hidden, N verbatim tokens, T context tokens of all documents.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from icae.config.types import FloatArray, TokenIds
from icae.errors import MemoryFileError
from icae.memory.bfloat16 import from_bfloat16_bits, to_bfloat16_bits
from icae.memory.container import Tensor
from icae.memory.header import HeaderRecord
from icae.memory.memory import Memory
from icae.memory.token_fidelity import TokenFidelity

SLOTS = "slots"
VERBATIM = "verbatim_ids"
REPRODUCED = "reproduced"
CONFIDENCE = "confidence"

_STORED_AS = {"bfloat16": "BF16", "float32": "F32"}


def pack_arrays(memory: Memory) -> dict[str, Tensor]:
    """The arrays of a memory as tensors, those with the largest items first.

    So every tensor of a file is aligned to its items. Slots stored as bfloat16 are
    rounded to the nearest, ties to even.

    Args:
        memory: The memory.

    Returns:
        Tensors by name: the slots, the verbatim token ids if there are any, and the
        fidelity of the tokens if it is known.

    Raises:
        MemoryFileError: If a slot is too large for bfloat16.
    """
    tensors = {}
    if memory.verbatim_tokens:
        ids = memory.verbatim_ids.astype("<u4")
        tensors[VERBATIM] = Tensor(dtype="U32", shape=ids.shape, data=ids.tobytes())
    tensors[SLOTS] = _pack_slots(memory)
    if memory.token_fidelity is not None:
        bits = np.packbits(memory.token_fidelity.reproduced, bitorder="little")
        confidence = memory.token_fidelity.confidence
        tensors[REPRODUCED] = Tensor(dtype="U8", shape=bits.shape, data=bits.tobytes())
        tensors[CONFIDENCE] = Tensor(dtype="U8", shape=confidence.shape, data=confidence.tobytes())
    return tensors


def expected_arrays(header: HeaderRecord) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each array that a file with this header has to hold.

    Args:
        header: The header.
    """
    shape = (header.slot_count, header.provenance.hidden_size)
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        SLOTS: (_STORED_AS[header.provenance.slot_dtype], shape)
    }
    if header.verbatim_count:
        expected[VERBATIM] = ("U32", (header.verbatim_count,))
    if header.token_fidelity:
        expected[REPRODUCED] = ("U8", (-(-header.tokens // 8),))
        expected[CONFIDENCE] = ("U8", (header.tokens,))
    return expected


def _pack_slots(memory: Memory) -> Tensor:
    dtype = _STORED_AS[memory.provenance.slot_dtype]
    if dtype == "F32":
        data = memory.slots.astype("<f4").tobytes()
        return Tensor(dtype=dtype, shape=memory.slots.shape, data=data)
    bits = to_bfloat16_bits(memory.slots)
    if not np.isfinite(from_bfloat16_bits(bits)).all():
        raise MemoryFileError(
            "Some slots are too large for bfloat16.",
            got=f"up to {float(np.abs(memory.slots).max()):.6g}",
            expected="below 3.39e38",
            fix="Store the slots as float32.",
        )
    return Tensor(dtype=dtype, shape=memory.slots.shape, data=bits.tobytes())


def unpack_slots(tensors: Mapping[str, Tensor]) -> FloatArray:
    """The slots, float32 [K, D] whatever the file stores.

    Args:
        tensors: Tensors by name.
    """
    tensor = tensors[SLOTS]
    if tensor.dtype == "BF16":
        return from_bfloat16_bits(np.frombuffer(tensor.data, dtype="<u2")).reshape(tensor.shape)
    return np.frombuffer(tensor.data, dtype="<f4").astype(np.float32).reshape(tensor.shape)


def unpack_verbatim(tensors: Mapping[str, Tensor]) -> TokenIds:
    """The verbatim token ids, int64 [N]; none if the file has no such tensor.

    Args:
        tensors: Tensors by name.
    """
    data = tensors[VERBATIM].data if VERBATIM in tensors else b""
    return np.frombuffer(data, dtype="<u4").astype(np.int64)


def unpack_fidelity(tensors: Mapping[str, Tensor]) -> TokenFidelity | None:
    """The fidelity of every token, or None if the file does not hold it.

    Args:
        tensors: Tensors by name, of the shapes that the header implies.

    Raises:
        ValueError: If a bit is set that stands for no token.
    """
    if CONFIDENCE not in tensors:
        return None
    confidence = np.frombuffer(tensors[CONFIDENCE].data, dtype=np.uint8).copy()
    packed = np.frombuffer(tensors[REPRODUCED].data, dtype=np.uint8)
    bits = np.unpackbits(packed, bitorder="little").astype(np.bool_)
    if bits[len(confidence) :].any():
        raise ValueError("a token is marked as reproduced that does not exist")
    return TokenFidelity(reproduced=bits[: len(confidence)].copy(), confidence=confidence)
