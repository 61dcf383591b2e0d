from __future__ import annotations

import pytest
import torch

from icae.decode.devices import pick_device, pick_dtype
from icae.errors import InputError


def test_a_named_device_is_taken() -> None:
    assert pick_device("cpu") == torch.device("cpu")


def test_without_a_name_the_best_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(None).type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device(None).type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(None).type == "cuda"


@pytest.mark.parametrize("name", ["gpu", "cuda:999", ""])
def test_a_device_that_cannot_be_used_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="device cannot be used") as caught:
        pick_device(name)

    assert caught.value.got == name
    assert "cpu" in str(caught.value.expected)
    assert "Leave --device out" in str(caught.value.fix)


def test_a_precision_that_the_device_lacks_is_refused_with_one_that_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking(*_: object) -> None:
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(torch, "matmul", lacking)
    with pytest.raises(InputError, match="cpu does not compute in bfloat16") as caught:
        pick_dtype("bfloat16", torch.device("cpu"))
    assert "--dtype float32" in str(caught.value.fix)


def test_precisions_go_by_name() -> None:
    cpu = torch.device("cpu")

    assert pick_dtype("float32", cpu) is torch.float32
    assert pick_dtype("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(InputError, match="dtype is not known") as caught:
        pick_dtype("float16", cpu)
    assert caught.value.got == "float16"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, torch.float32),
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),
    ],
)
def test_the_default_precision_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)

    assert pick_dtype(None, torch.device("cpu")) is expected
    assert pick_dtype(None, torch.device("cuda")) is torch.bfloat16


def test_an_old_torch_that_cannot_tell_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)

    assert pick_dtype(None, torch.device("cpu")) is torch.float32
