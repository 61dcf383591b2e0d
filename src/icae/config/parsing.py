"""Strict reading of configuration: YAML and JSON values into frozen dataclasses.

Unknown keys, wrong types and missing keys are refused with the name of the place.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from icae.errors import ConfigError

T = TypeVar("T")


def check(condition: bool, message: str, got: object, expected: str) -> None:
    """Refuse a setting.

    Raises:
        ConfigError: Unless the condition holds.
    """
    if not condition:
        raise ConfigError(message, got=repr(got), expected=expected)


def read_yaml(path: str | Path) -> Any:
    """Parse a YAML file, unchecked.

    Raises:
        ConfigError: If it is missing or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Cannot read the recipe {path}.", got=str(error), fix="Give the path of a YAML file."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML.", got=" ".join(str(error).split())) from error


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain dicts and lists, ready for JSON or YAML."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def from_dict(cls: type[T], raw: Any, *, where: str) -> T:
    """Build a config dataclass from parsed YAML or JSON, strictly.

    Args:
        cls: The dataclass to build.
        raw: A mapping of its fields.
        where: Name of the place in messages, for example the recipe's path.

    Raises:
        ConfigError: On an unknown key, a missing key or a wrong type.
    """
    if not isinstance(raw, Mapping):
        got = type(raw).__name__
        raise ConfigError(f"{where}: a mapping is needed.", got=got, expected="key: value lines")
    assert is_dataclass(cls)
    known = {f.name: f for f in fields(cls)}
    hints = _type_hints(cls)
    unknown = sorted(str(key) for key in raw if key not in known)
    if unknown:
        expected = ", ".join(sorted(known))
        raise ConfigError(f"{where}: unknown key.", got=", ".join(unknown), expected=expected)
    values = {
        key: _convert(hints[key], value, where=f"{where}: {key}") for key, value in raw.items()
    }
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{where}: a key is missing.", got="nothing", expected=name)
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {error.message}", got=error.got, expected=error.expected, fix=error.fix
        ) from error


@functools.cache
def _type_hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of a class; looked up once, as memories have many spans."""
    return typing.get_type_hints(cls)


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    """Check `value` against a type hint; ints pass as floats, lists as tuples."""
    origin = typing.get_origin(hint)
    args = typing.get_args(hint)
    wrong = ConfigError(
        f"{where}: wrong type or value.",
        got=repr(value),
        expected=str(hint).replace("typing.", "")
        if origin
        else getattr(hint, "__name__", str(hint)),
    )
    if origin is types.UnionType:
        for option in args:
            if option is type(None) and value is None:
                return None
            if option is not type(None) and value is not None:
                return _convert(option, value, where=where)
        raise wrong
    if origin is Literal:
        if value not in args:
            raise wrong
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise wrong
        return tuple(_convert(args[0], item, where=f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise wrong
        return {
            _convert(args[0], key if args[0] is str else _number(key), where=where): _convert(
                args[1], item, where=where
            )
            for key, item in value.items()
        }
    if hint is Any:
        return value
    if is_dataclass(hint):
        if isinstance(value, str) and hasattr(hint, "from_text"):
            return hint.from_text(value)
        return from_dict(typing.cast(type, hint), value, where=where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise wrong from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise wrong
    return value


def _number(key: Any) -> Any:
    """A mapping key that JSON turned into text, as the number it was."""
    try:
        return key if not isinstance(key, str) else float(key) if "." in key else int(key)
    except ValueError:
        return key
