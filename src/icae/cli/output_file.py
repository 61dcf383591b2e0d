"""The older form of `icae.cli.memories.check_output`, until nobody uses it."""

from __future__ import annotations

from pathlib import Path

from icae.cli import memories


def check_output(path: Path, *, if_exists: str) -> None:
    """Refuse an output file that would destroy something or cannot be written."""
    memories.check_output(path, force=if_exists == "replace")
