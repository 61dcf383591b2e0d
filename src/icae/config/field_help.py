"""The help of a setting, said once: in the docstring of its dataclass."""

from __future__ import annotations

import functools
import inspect
import re


@functools.cache
def field_help(cls: type) -> dict[str, str]:
    """What the ``Attributes`` section of a dataclass says about each field.

    Args:
        cls: A dataclass with a Google docstring.

    Returns:
        Field -> its text on one line, Markdown kept; fields without a text are left out.
    """
    text = inspect.getdoc(cls) or ""
    _, _, section = text.partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", section.split("\n\n")[0], re.MULTILINE)
    return {name: " ".join(lines.split()) for name, lines in found}
