"""Checks of text that the parts of a memory make on themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from icae.config.parsing import check
from icae.errors import ConfigError


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
    good = len(digest) == 64 and all(character in "0123456789abcdef" for character in digest)
    check(good, f"{what} is not a digest.", digest, "64 hex digits")


def check_array(message: str, array: object, dtype: DTypeLike, axes: int) -> None:
    """A ConfigError for what is no NumPy array of a dtype with so many axes."""
    got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
    good = isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == axes
    check(good, message, got, f"a NumPy array, {np.dtype(dtype)}, axes: {axes}")
