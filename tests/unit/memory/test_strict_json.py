from __future__ import annotations

import pytest

from icae.memory.strict_json import read_strict, write_canonical


def test_canonical_form_sorts_keys_keeps_unicode_and_is_read_back() -> None:
    value = {"b": [1, None, 0.1], "a": "ß\n"}
    assert write_canonical(value) == '{"a":"ß\\n","b":[1,null,0.1]}'
    assert read_strict(write_canonical(value)) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_canonical(float("nan"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1] 2",
        '{"a":1,"a":1}',
        '{"a":{"b":1,"b":2}}',
        "NaN",
        "[-Infinity]",
        '{"\\ud800":1}',
        "[" * 100_000,
        "9" * 5000,
    ],
    ids=lambda text: text[:20],
)
def test_lenient_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any ValueError is what callers handle)
        read_strict(text)
