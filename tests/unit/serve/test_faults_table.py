from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_test_that_the_table_of_faults_names_is_there() -> None:
    table = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:\w+/)?test_\w+\.py)", table)
    folders = (ROOT / "tests" / "unit" / "serve", ROOT / "tests" / "unit")
    found = {name: [at / name for at in folders if (at / name).is_file()] for name in files}
    assert all(found.values()), found
    tests = "".join(paths[0].read_text(encoding="utf-8") for paths in found.values())
    named = set(re.findall(r"\btest_\w+(?=`)", table))
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in tests] == []
