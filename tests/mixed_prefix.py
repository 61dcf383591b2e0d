"""Forms of memory that several tests share: keys and values, and a memory of two forms."""

from __future__ import annotations

from typing import Any

from icae.decode.prefix import Prefix
from icae.decode.torch import TorchRuntime
from icae.memory import Verbatim

KEY_VALUES: dict[str, Any] = {
    "memory": "key-values",
    "framing": "between",
    "objective_tokens": 2,
    "lora_targets": "all-linear",
}
"""Settings of a model whose memories are keys and values."""


def mixed_prefix(torch_runtime: TorchRuntime, random_ids: Any, objective: Any = "ft") -> Prefix:
    """Slots, verbatim tokens, slots."""
    first, last = torch_runtime.encode([random_ids(16), random_ids(9, 2)], [4, 3])
    return Prefix(
        parts=(first, Verbatim(ids=random_ids(6, 1)), last),
        spans=((16, 4), (6, 6), (9, 3)),
        objective=objective,
    )
