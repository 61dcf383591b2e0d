from __future__ import annotations

import pytest
from tests.bases.architectures import tiny


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))


def test_check_prints_what_holds_and_which_forms_a_base_has(icae, tmp_path):
    tiny("Granite").save_pretrained(tmp_path / "base")
    result = icae("check", tmp_path / "base", "--dtype", "float32")
    assert result.exit_code == 0, result.output
    for name in ("embeddings", "head", "cache", "positions", "rows", "again", "adapter"):
        assert name in result.stdout
    assert "memories as key-values           yes" in result.stdout
    assert "GraniteForCausalLM, float32" in result.stdout


def test_check_of_a_base_that_fails_ends_with_one(icae, payload, tmp_path):
    tiny("GPT2").save_pretrained(tmp_path / "base")
    result = icae("check", tmp_path / "base", "--dtype", "float32", "--json")
    assert result.exit_code == 1
    assert '"sound": false' in result.stdout
    assert "GPT2" in result.stdout


def test_check_says_why_a_base_has_no_key_values(payload, tmp_path):
    tiny("DeepseekV2").save_pretrained(tmp_path / "base")
    made = payload("check", tmp_path / "base", "--dtype", "float32", "--full")
    assert made["sound"]
    assert "latent" in made["key_values_refused"]
