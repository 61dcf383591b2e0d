from __future__ import annotations

from typing import Any

import pytest
import torch

from icae.decode.devices import pick_device, pick_dtype
from icae.errors import InputError

CPU = torch.device("cpu")


def test_a_named_device_is_taken_else_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for mps, best in ((False, "cpu"), (True, "mps")):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert pick_device(None).type == best
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(None).type == "cuda"


@pytest.mark.parametrize("name", ["gpu", "cuda:999", ""])
def test_a_device_that_cannot_be_used_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="device cannot be used") as caught:
        pick_device(name)

    assert caught.value.got == name
    assert "cpu" in str(caught.value.expected)
    assert "Leave --device out" in str(caught.value.fix)


def test_precisions_go_by_name_where_the_device_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object) -> None:
        raise RuntimeError("not implemented for 'BFloat16'")

    assert pick_dtype("float32", CPU) is torch.float32
    assert pick_dtype("bfloat16", CPU) is torch.bfloat16
    with pytest.raises(InputError, match="dtype is not known"):
        pick_dtype("float16", CPU)
    monkeypatch.setattr(torch, "matmul", lacking)
    with pytest.raises(InputError, match="cpu does not compute in bfloat16") as caught:
        pick_dtype("bfloat16", CPU)
    assert "--dtype float32" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),
        (None, torch.float32),  # an old torch that cannot tell
    ],
)
def test_the_default_precision_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, found: Any, expected: torch.dtype
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    if found is not None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)

    assert pick_dtype(None, CPU) is expected
    assert pick_dtype(None, torch.device("cuda")) is torch.bfloat16
