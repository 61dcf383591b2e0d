"""Most memory that a piece of work takes, above what was taken before it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Made = TypeVar("Made")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def with_peak(device: torch.device, work: Callable[[], Made]) -> tuple[Made, int | None]:
    """Do some work and measure its peak.

    Args:
        device: Where it is done. On CUDA the peak is that of the allocator; on a CPU under
            Linux it is that of the process, after freed memory was handed back.
        work: The work.

    Returns:
        Its result, and bytes above the start; None where they cannot be measured.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        torch.cuda.synchronize(device)
        return result, torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text(_RESET_PEAK)
        start = _status("VmRSS")
    except (OSError, KeyError, AttributeError):
        return work(), None
    result = work()
    return result, max(0, _status("VmHWM") - start)


def _status(key: str) -> int:
    """A size of this process, bytes."""
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise KeyError(key)
