"""Choosing device and precision."""

from __future__ import annotations

import torch

from icae.errors import InputError


def pick_device(name: str | None) -> torch.device:
    """The named device, or the best there is: CUDA, then MPS, then the CPU.

    Raises:
        InputError: If the named device cannot be used.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = _devices()
        raise InputError(
            "The device cannot be used.",
            got=name,
            expected=f"one that torch {torch.__version__} finds here: {', '.join(found)}",
            fix=f"Leave --device out: {found[0]} is then taken.",
        ) from error
    return device


def _devices() -> list[str]:
    """The devices that there are, the best first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return cuda + (["mps"] if torch.backends.mps.is_available() else []) + ["cpu"]


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The named precision, or bfloat16 where the device computes in it, else float32.

    Raises:
        InputError: If the name is neither ``bfloat16`` nor ``float32``, or the device does not
            compute in it.
    """
    known = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if name is not None:
        if name not in known:
            raise InputError("The dtype is not known.", got=name, expected=", ".join(known))
        try:
            one = torch.ones(1, 1, dtype=known[name], device=device)
            torch.matmul(one, one)
        except (RuntimeError, TypeError) as error:
            raise InputError(
                f"The device {device} does not compute in {name}.",
                got=str(error).splitlines()[0],
                fix="Use --dtype float32, or leave --dtype out.",
            ) from error
        return known[name]
    if device.type != "cpu":
        return torch.bfloat16
    # Older torch cannot tell; float32 is always right there, only slower.
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if fast else torch.float32
