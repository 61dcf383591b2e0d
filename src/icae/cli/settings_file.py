"""Options of a command from a YAML file and the environment, and what they come to."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer import BadParameter, CallbackParam, Context


def read_settings(context: Context, param: CallbackParam, path: Path | None) -> Path | None:
    """Let the options of a command have the values of a file, where nothing else gives them.

    A key is the name of an option without its dashes; click converts and checks the values.

    Raises:
        BadParameter: If the file cannot be read, or names what is no option.
    """
    if path is None:
        return None
    from icae.config.parsing import read_yaml
    from icae.errors import ConfigError

    try:
        given = read_yaml(path) or {}
    except ConfigError as error:
        raise BadParameter(f"{error.message} {error.got or ''}".strip()) from error
    if not isinstance(given, Mapping):
        raise BadParameter(f"{path} holds no mapping: write lines such as `port: 8000`.")
    known = {_key(one): one.name for one in context.command.params if one is not param}
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = known.get(str(key).replace("_", "-"))
        if name is None or name in ("json", "quiet", "check_config"):
            near = difflib.get_close_matches(str(key).replace("_", "-"), known, n=1, cutoff=0)
            raise BadParameter(
                f"{path} names {key}, which is no setting; the nearest is {near[0]}."
            )
        if value is not None:
            values[name] = value if isinstance(value, bool) else str(value)
    context.default_map = {**(context.default_map or {}), **values}
    return path


def effective_settings(context: Context) -> dict[str, dict[str, str]]:
    """Each option of a command: its value and where that comes from; secrets hidden."""
    found = {}
    for param in context.command.params:
        if param.name not in context.params or param.name in ("config", "check_config"):
            continue
        source = context.get_parameter_source(param.name)
        said = {"DEFAULT_MAP": "file", "COMMANDLINE": "option", "ENVIRONMENT": "environment"}
        where = said.get(source.name if source is not None else "", "default")
        value = context.params[param.name]
        found[_key(param)] = {"value": "" if value is None else _shown(str(value)), "from": where}
    return found


def _key(param: Any) -> str:
    return str(max(param.opts, key=len)).lstrip("-")


def _shown(value: str) -> str:
    """A value without the password of a URL."""
    scheme, mark, rest = value.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if mark and "@" in rest else value
