"""The older names of `icae.cli.console.progress`, until nobody uses them."""

from __future__ import annotations

from icae.cli.console import progress as eta_progress
from icae.cli.console import time_text

__all__ = ["eta_progress", "time_text"]
