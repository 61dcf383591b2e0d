"""Ranges of characters as they are typed: ``1200:2400``, ``:80``, ``5000:``."""

from __future__ import annotations

import re

import typer

_RANGE = re.compile(r"([0-9]{0,18}):([0-9]{0,18})")


def parse_range(text: str, *, chars: int, option: str) -> tuple[int, int]:
    """Read a range of characters.

    Args:
        text: ``A:B``; A is 0 and B the end of the document if left out.
        chars: Length of the document in characters.
        option: Name of the option or argument in messages.

    Returns:
        First character and one past the last; whether they exist is not checked.

    Raises:
        typer.BadParameter: If it is no such range.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is not a range of characters, for example 1200:2400.", param_hint=option
        )
    start, end = match.groups()
    return int(start or 0), int(end) if end else chars
