"""Settings given on the command line on top of a recipe file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from icae.config import Recipe
from icae.config.parsing import from_dict, read_yaml
from icae.errors import ConfigError

# YAML 1.1 reads 1e-4 as text; people mean the number.
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def read_recipe(path: Path, *, settings: Sequence[str] = (), output: Path | None = None) -> Recipe:
    """Read a recipe file, change settings, and only then check it.

    Args:
        path: A YAML file.
        settings: ``section.key=value``, applied in order.
        output: Folder of the run, or None for the recipe's.

    Raises:
        ConfigError: If the file cannot be read, or the recipe with its changes does not
            fit `Recipe`.
    """
    raw = read_yaml(path)
    for setting in settings:
        apply_setting(raw, setting)
    if output is not None:
        set_at(raw, ["run", "output"], str(output), where="--output")
    return from_dict(Recipe, raw, where=str(path))


def apply_setting(raw: Any, setting: str) -> None:
    """Change one value of a recipe that was not checked yet, in place.

    Args:
        raw: A recipe as YAML gives it: nested dicts and lists.
        setting: ``section.key=value``; the value is YAML, a number in a path counts list
            items from 0.

    Raises:
        ConfigError: If the setting has another form, or leads through something that has
            no parts.
    """
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(
            "A setting cannot be read.", got=f"--set {setting}", expected="section.key=value"
        )
    set_at(raw, parts, _value(text, setting), where=f"--set {setting}")


def set_at(raw: Any, parts: Sequence[str], value: Any, *, where: str) -> None:
    """Put a value into nested dicts and lists, in place; dicts that are missing are made.

    Args:
        raw: The outermost dict.
        parts: Keys on the way, outermost first.
        value: What to put there.
        where: Name of the change in messages.

    Raises:
        ConfigError: If a step leads into something that has no such part.
    """
    at = raw
    for depth, part in enumerate(parts):
        step = _step(at, part, path=".".join(parts[:depth]), where=where)
        if depth == len(parts) - 1:
            at[step] = value
        elif isinstance(at, dict) and at.get(step) is None:
            at[step] = {}
        at = at[step]


def _step(at: Any, part: str, *, path: str, where: str) -> Any:
    """The key or index that a part of a path names in what it leads into."""
    if isinstance(at, dict):
        return part
    if isinstance(at, list) and part.isdecimal() and int(part) < len(at):
        return int(part)
    if isinstance(at, list):
        got, expected = f"no item {part} in {path}", f"0..{len(at) - 1}"
    else:
        got, expected = f"{path or 'the recipe'} is {at!r}", "a section"
    raise ConfigError(f"{where}: there is no such place.", got=got, expected=expected)


def _value(text: str, setting: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            "A setting cannot be read.",
            got=f"--set {setting}",
            expected="a value that YAML can read",
        ) from error
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        number = float(value)
        return int(number) if number.is_integer() else number
    return value
