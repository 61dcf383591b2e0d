"""JSON without its loopholes: one way to write a value, and nothing read leniently."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def write_canonical(value: object) -> str:
    """JSON with sorted keys, no white space, and only the escapes that it demands.

    A ValueError if a float is not finite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def read_strict(text: str) -> Any:
    """Parse JSON, with a ValueError for what the standard library lets pass.

    That is a repeated key, a key without UTF-8 form, NaN and Infinity, and too deep a nesting.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key is repeated")
    for key in mapping:
        key.encode("utf-8")  # A lone surrogate raises UnicodeEncodeError, a ValueError.
    return mapping


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
