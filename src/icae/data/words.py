"""Texts as 64-bit hashes of their words: what duplicate and overlap checks compare.

A word is a run of letters, digits and underscores of any script, in lower case; spaces, line
breaks and punctuation do not count. Everything is computed on arrays of code points, and
hashes are the same in every process.
"""

from __future__ import annotations

import hashlib
import sys
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

WORD, LETTER, SPACE = 1, 2, 4

_BLOCK = 1 << 18
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64


def code_points(text: str) -> NDArray[np.uint32]:
    """The characters of a text as numbers, uint32 ``[len(text)]``."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@cache
def character_kinds() -> NDArray[np.uint8]:
    """Kind of every code point: bits `WORD`, `LETTER` and `SPACE`, uint8 ``[0x110000]``."""
    kinds = bytearray(sys.maxunicode + 1)
    for code in range(len(kinds)):
        character = chr(code)
        kinds[code] = (
            WORD * (character.isalnum() or character == "_")
            | LETTER * character.isalpha()
            | SPACE * character.isspace()
        )
    return np.frombuffer(bytes(kinds), dtype=np.uint8)


def hash_words(text: str) -> Hashes:
    """Hash every word of a text in order: uint64 ``[W]``."""
    return locate_words(text)[0]


def locate_words(text: str) -> tuple[Hashes, Offsets, Offsets]:
    """Hashes of the words of a text, uint64 ``[W]``, and where they stand.

    That is the first character of each and one past its last, int64 ``[W]`` both.
    """
    codes = code_points(text)
    inside = np.zeros(len(codes) + 2, dtype=np.int8)
    inside[1:-1] = character_kinds()[codes] & WORD
    edges = np.diff(inside)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    hashes = np.empty(len(starts), dtype=np.uint64)
    done = 0
    while done < len(starts):
        base = starts[done]
        stop = max(done + 1, int(np.searchsorted(ends, base + _BLOCK, side="right")))
        block = slice(done, stop)
        hashes[block] = _hash_runs(
            codes[base : ends[stop - 1]], starts[block] - base, ends[block] - base
        )
        done = stop
    return hashes, starts, ends


def _hash_runs(codes: NDArray[np.uint32], starts: Offsets, ends: Offsets) -> Hashes:
    """Polynomial hash of each run: sum of ``value[i] * m**(i - start)`` modulo 2**64."""
    powers, inverse = _powers(max(2 * _BLOCK, 1 << len(codes).bit_length()))
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(_character_values()[codes] * powers[: len(codes)], out=sums[1:])
    return scramble((sums[ends] - sums[starts]) * inverse[starts])


@cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Powers 0..count-1 of the multiplier and of its inverse, modulo 2**64."""
    series = []
    for base in (_MULTIPLIER, pow(_MULTIPLIER, -1, 1 << 64)):
        factors = np.full(count, base, dtype=np.uint64)
        factors[0] = 1
        series.append(np.cumprod(factors, dtype=np.uint64))
    return series[0], series[1]


@cache
def _character_values() -> Hashes:
    """A 64-bit value for each code point; upper and lower case share one."""
    lower = [
        ord(small) if len(small := chr(code).lower()) == 1 else code
        for code in range(sys.maxunicode + 1)
    ]
    return scramble(np.array(lower, dtype=np.uint64) + np.uint64(1))


def ngram_hashes(words: Hashes, n: int) -> Hashes:
    """Hash every run of n >= 1 words, uint64 ``[max(0, W - n + 1)]``; run i starts at word i."""
    count = max(0, len(words) - n + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(n if count else 0):
        hashes *= np.uint64(_MULTIPLIER)
        hashes += words[offset : offset + count]
    return scramble(hashes)


def scramble(values: Hashes) -> Hashes:
    """Spread 64-bit values evenly (the finalizer of SplitMix64), one to one."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def text_key(words: Hashes) -> Hashes:
    """Key of a text, uint64 ``[2]``: equal for the same words in the same order."""
    digest = hashlib.blake2b(words.astype("<u8").tobytes(), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def uniform(keys: Hashes, *, seed: int, purpose: str) -> NDArray[np.float64]:
    """A number for each key uint64 ``[N, 2]``, float64 ``[N]``, evenly spread over ``[0, 1)``.

    It depends on nothing but the key, the seed and the purpose; two purposes give independent
    numbers.
    """
    salt = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest()
    mixed = scramble(scramble(keys[:, 0] ^ np.uint64(int.from_bytes(salt, "little"))) ^ keys[:, 1])
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
