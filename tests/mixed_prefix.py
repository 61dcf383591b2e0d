"""A memory of two forms, as a runtime reads it; shared by the tests of several runtimes."""

from __future__ import annotations

from typing import Any

from icae.decode.prefix import Prefix
from icae.decode.torch import TorchRuntime
from icae.memory import Verbatim


def mixed_prefix(torch_runtime: TorchRuntime, random_ids: Any, objective: Any = "ft") -> Prefix:
    """Slots, verbatim tokens, slots."""
    first, last = torch_runtime.encode([random_ids(16), random_ids(9, 2)], [4, 3])
    return Prefix(
        parts=(first, Verbatim(ids=random_ids(6, 1)), last),
        spans=((16, 4), (6, 6), (9, 3)),
        objective=objective,
    )
