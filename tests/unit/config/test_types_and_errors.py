from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

import icae
from icae import errors
from icae.config import types
from icae.errors import ConfigError, IcaeError

SUBCLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, Exception)
]


@pytest.mark.parametrize("kind", SUBCLASSES, ids=lambda kind: kind.__name__)
def test_one_except_clause_catches_every_error(kind: type[IcaeError]) -> None:
    with pytest.raises(IcaeError):
        raise kind("Something is wrong.")


def test_an_error_says_what_was_got_expected_and_how_to_fix_it() -> None:
    error = ConfigError("The ratio is wrong.", got="0.5", expected=">= 1", fix="Give 4.")

    assert str(error).splitlines() == [
        "The ratio is wrong.",
        "  got:      0.5",
        "  expected: >= 1",
        "  fix:      Give 4.",
    ]


@pytest.mark.parametrize(
    ("known", "literal"),
    [
        (types.POSITION_LAYOUTS, types.PositionLayout),
        (types.OBJECTIVES, types.Objective),
    ],
)
def test_the_list_of_a_literal_type_names_all_of_it(known: tuple[str, ...], literal: type) -> None:
    assert known == get_args(literal)


def test_the_public_names_are_these() -> None:
    names = "Conversation Engine IcaeError Memory Reader __version__ ask compress load locked"
    assert sorted(icae.__all__) == [*names.split(), "open_reader", "reconstruct"]
    assert icae.IcaeError is IcaeError
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        icae.nonsense  # noqa: B018


def test_the_core_imports_without_torch_and_transformers() -> None:
    code = (
        "import sys, icae, icae.memory, icae.config, icae.model.objectives; icae.Memory;"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"
