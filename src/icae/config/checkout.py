"""Which commit of the code is running."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str | None:
    """Commit of the code, with ``+`` if the tree was changed; None outside a checkout."""
    here = Path(__file__).parents[1]

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    try:
        tracked = git("ls-files", "--", str(here / "__init__.py"))
        head = git("rev-parse", "--short=12", "HEAD") if tracked else ""
        changed = bool(head) and bool(git("status", "--porcelain", "--", str(here)))
    except OSError:
        return None
    return head + "+" * changed if head else None
