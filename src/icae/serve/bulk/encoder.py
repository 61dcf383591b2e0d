"""Loading the model in a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icae.engine import Icae


@dataclass(frozen=True, kw_only=True)
class EngineOpener:
    """Loads the same engine in every worker; it travels as these settings.

    Attributes:
        adapter: Adapter folder, or None for the default.
        base: Base model, or None for the adapter's.
        device: Torch device, or None for the best found.
        dtype: Precision of the base model, or None for the device's usual one.
        threads: CPU threads of a worker. The order of sums, and with it the last bits of
            slots, may depend on it.
    """

    adapter: str | None = None
    base: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int = 1

    def __call__(self) -> Icae:
        """Load it."""
        import torch

        from icae import engine as api

        torch.set_num_threads(self.threads)
        return api.load(self.adapter, base=self.base, device=self.device, dtype=self.dtype)
