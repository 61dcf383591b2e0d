from __future__ import annotations

import re
from dataclasses import replace

import pytest

from icae.errors import ConfigError, IncompatibleMemoryError


@pytest.mark.parametrize(
    ("field", "value", "label"),
    [
        ("base_hash", "c" * 64, "base model"),
        ("adapter_hash", "c" * 64, "adapter"),
        ("tokenizer_hash", "c" * 64, "tokenizer"),
        ("layout", "default", "layout"),
        ("hidden_size", 4, "hidden size"),
        ("slot_dtype", "bfloat16", "slot dtype"),
    ],
)
def test_mismatch_names_both_sides_the_field_and_both_values(provenance, field, value, label):
    other = replace(provenance, **{field: value})
    with pytest.raises(IncompatibleMemoryError) as caught:
        provenance.require_match(other, what_self="the loaded model", what_other="notes.icae")
    error = caught.value
    assert error.message == f"notes.icae does not fit the loaded model: {label} differs."
    assert re.fullmatch(f"notes.icae: {label}.*{value}.*", str(error.got))
    mine = getattr(provenance, field)
    assert re.fullmatch(f"the loaded model: {label}.*{mine}.*", str(error.expected))


def test_renamed_model_and_adapter_still_match(provenance):
    other = replace(provenance, base_model="/models/base", adapter="moved")
    provenance.require_match(other, what_self="x", what_other="y")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_hash", ""),
        ("adapter", ""),
        ("base_model", "\ud800"),
        ("layout", "sideways"),
        ("slot_dtype", "int8"),
        ("hidden_size", 0),
    ],
)
def test_provenance_with_a_bad_field_is_refused(provenance, field, value):
    with pytest.raises(ConfigError, match=f"provenance.{field}"):
        replace(provenance, **{field: value})
