"""Packages of an optional extra, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from icae.errors import MissingDependencyError


def import_extra(module: str, *, purpose: str, extra: str) -> Any:
    """Import a package that only one of the extras brings.

    Args:
        module: The module, for example ``pyarrow.parquet``.
        purpose: What needs it, as the start of a sentence.
        extra: The extra of icae that installs it.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f"{purpose} needs {package}.",
            got=f"{package} is not installed",
            expected=f"the extra {extra!r}",
            fix=f'pip install ".[{extra}]" in the checkout, or pip install {package}',
        ) from error
