"""Strict reading of configuration: YAML and JSON values into frozen dataclasses.

Unknown keys, duplicate keys, wrong types and missing keys are refused with the name of the place.
"""

from __future__ import annotations

import functools
import operator
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from icae.errors import ConfigError

T = TypeVar("T")

_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d{1,3}$")


@dataclass(frozen=True, kw_only=True)
class Removed:
    """A setting that older files may name; a dataclass lists its own under ``REMOVED``.

    Attributes:
        why: Why there is no such setting, or no such value, any more.
        neutral: Of a setting that is gone, the value that changes nothing: it is dropped.
        values: Of a setting that stays, the values that are gone.
    """

    why: str
    neutral: object = None
    values: tuple[object, ...] = ()


def check(condition: bool, message: str, got: object, expected: str) -> None:
    """Refuse a setting.

    Raises:
        ConfigError: Unless the condition holds.
    """
    if not condition:
        raise ConfigError(message, got=repr(got), expected=expected)


def check_ranges(
    section: str,
    config: Any,
    *,
    at_least_one: Sequence[str] = (),
    at_least_zero: Sequence[str] = (),
    positive: Sequence[str] = (),
) -> None:
    """Refuse numbers of a section that are out of range; None is in any.

    Raises:
        ConfigError: With the name of the key.
    """
    bounds = [
        *((name, ">= 1", operator.ge, 1) for name in at_least_one),
        *((name, ">= 0", operator.ge, 0) for name in at_least_zero),
        *((name, "> 0", operator.gt, 0) for name in positive),
    ]
    for name, expected, holds, bound in bounds:
        got = getattr(config, name)
        good = got is None or holds(got, bound)
        check(good, f"{section}.{name} is out of range.", got, expected)


def read_yaml(path: str | Path) -> Any:
    """Parse a YAML file; its values are not checked.

    Raises:
        ConfigError: If it is missing, is not YAML or names a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Cannot read the recipe {path}.", got=str(error), fix="Give the path of a YAML file."
        ) from error
    return parse_yaml(text, where=str(path))


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse YAML; ``1e-3`` is a number (YAML 1.1 alone would read it as text).

    Raises:
        ConfigError: If it is not YAML or names a key twice; the message names `where`.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a mapping that names a key twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [(key.tag, key.value) for key, _ in node.value]
            twice = [str(name) for tag, name in names if names.count((tag, name)) > 1]
            if twice:
                line = node.start_mark.line + 1
                raise ConfigError(
                    f"{where}: a key is given twice.",
                    got=f"{twice[0]}, in the mapping at line {line}",
                    expected="each key once",
                )
            return super().construct_mapping(node, deep)

        def construct_exponent(self, node: yaml.ScalarNode) -> float:
            number = float(node.value)
            return int(number) if number.is_integer() else number

    Loader.add_implicit_resolver("!exponent", _EXPONENT, list("+-.0123456789"))
    Loader.add_constructor("!exponent", Loader.construct_exponent)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{where} is not valid YAML.", got=" ".join(str(error).split())
        ) from error


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
    """Build a config dataclass from parsed YAML or JSON, strictly; messages name `where`.

    Raises:
        ConfigError: On an unknown or removed key, a missing key or a wrong type.
    """
    if not isinstance(raw, Mapping):
        got = type(raw).__name__
        raise ConfigError(f"{where}: a mapping is needed.", got=got, expected="key: value lines")
    assert is_dataclass(cls)
    known, hints = _fields(cls)
    removed: Mapping[str, Removed] = getattr(cls, "REMOVED", {})
    unknown = sorted(str(key) for key in raw if key not in known and key not in removed)
    if unknown:
        expected = ", ".join(sorted(known))
        raise ConfigError(f"{where}: unknown key.", got=", ".join(unknown), expected=expected)
    values = {}
    for key, value in raw.items():
        gone = removed.get(key)
        if gone and (value in gone.values if key in known else value != gone.neutral):
            raise ConfigError(
                f"{where}: this setting is no more. {gone.why}",
                got=f"{key}: {value}",
                expected="another value" if key in known else f"no {key}, or {gone.neutral}",
                fix="Use the code of commit 0031da2, which has it.",
            )
        if key in known:
            values[key] = _convert(hints[key], value, where=f"{where}: {key}")
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
def _fields(cls: type) -> tuple[dict[str, Field[Any]], dict[str, Any]]:
    """Fields of a dataclass and their types; looked up once, as memories have many spans."""
    return {f.name: f for f in fields(cls)}, typing.get_type_hints(cls)


@functools.cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(hint), typing.get_args(hint)


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    """Check `value` against a type hint; ints pass as floats, lists as tuples."""
    if type(value) is hint:
        return value
    origin, args = _parts(hint)
    if origin is types.UnionType and value is None and type(None) in args:
        return None
    if origin is types.UnionType and value is not None:
        return _convert(next(a for a in args if a is not type(None)), value, where=where)
    if origin is Literal and value in args:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(args[0], item, where=f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {
            _convert(args[0], key if args[0] is str else _number(key), where=where): _convert(
                args[1], item, where=where
            )
            for key, item in value.items()
        }
    if hint is Any:
        return value
    if is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, str) and hasattr(hint, "from_text"):
            return hint.from_text(value)
        return from_dict(hint, value, where=where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    elif (
        origin is None and isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    ):
        return value
    name = str(hint).replace("typing.", "") if origin else getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{where}: wrong type or value.", got=repr(value), expected=name)


def _number(key: Any) -> Any:
    """A mapping key that JSON turned into text, as the number it was."""
    try:
        return key if not isinstance(key, str) else float(key) if "." in key else int(key)
    except ValueError:
        return key
