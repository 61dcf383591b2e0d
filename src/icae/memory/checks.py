"""Checks that every part of a memory makes on itself when it is built."""

from __future__ import annotations

from icae.errors import ConfigError


def check(condition: bool, message: str, got: object, expected: str) -> None:
    """Raise ConfigError unless the condition holds.

    Args:
        condition: What has to be true.
        message: One line naming the problem.
        got: The offending value.
        expected: What would have been right.

    Raises:
        ConfigError: If the condition is false.
    """
    if not condition:
        raise ConfigError(message, got=repr(got), expected=expected)


def check_text(what: str, text: str) -> None:
    """Raise ConfigError if a text cannot be stored as UTF-8.

    Args:
        what: Name of the text in the message.
        text: The text; lone surrogates, as in undecodable file names, are refused.

    Raises:
        ConfigError: If the text has no UTF-8 form.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{what} is not valid Unicode.",
            got=f"{error.reason} at character {error.start}",
            expected="text that UTF-8 can store",
        ) from error


def is_sha256(digest: str) -> bool:
    """Whether a text is a SHA-256 digest in lower-case hex."""
    return len(digest) == 64 and all(character in "0123456789abcdef" for character in digest)
