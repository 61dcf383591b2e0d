"""Checks that the parts of a memory make on themselves, and equality of those that hold arrays."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass

import numpy as np
from numpy.typing import DTypeLike

from icae.config.parsing import check
from icae.errors import ConfigError

_SHA256 = re.compile("[0-9a-f]{64}")


class ByValue:
    """Makes dataclasses (of ``eq=False``) equal if their fields are, arrays by value."""

    def __eq__(self, other: object) -> bool:
        assert is_dataclass(self)
        return type(self) is type(other) and all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]


def check_text(what: str, text: str) -> None:
    """A ConfigError for text that UTF-8 cannot store: lone surrogates, as in some file names."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{what} is not valid Unicode.",
            got=f"{error.reason} at character {error.start}",
            expected="text that UTF-8 can store",
        ) from error


def check_sha256(what: str, digest: str) -> None:
    """A ConfigError for what is no SHA-256 digest in lower-case hex."""
    check(bool(_SHA256.fullmatch(digest)), f"{what} is not a digest.", digest, "64 hex digits")


def check_array(message: str, array: object, dtype: DTypeLike, axes: int) -> None:
    """A ConfigError for what is no NumPy array of a dtype with so many axes."""
    if isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == axes:
        return  # said of nothing: a file has thousands of arrays
    got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
    check(False, message, got, f"a NumPy array, {np.dtype(dtype)}, axes: {axes}")
