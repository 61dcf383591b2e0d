"""Lists of names on the command line: A,B,..."""

from __future__ import annotations


def split_names(text: str) -> tuple[str, ...]:
    """The names between commas, without spaces around them, each once, in order."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))
