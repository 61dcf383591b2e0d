"""`examples/quickstart.ipynb`, run from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


@pytest.mark.real_model
def test_the_notebook_runs_and_shows_memories_and_answers(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat", reason="NO NBFORMAT: the notebook is not run")
    nbclient = pytest.importorskip("nbclient", reason="NO NBCLIENT: the notebook is not run")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)  # none is committed
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()

    shown = [
        output.data.get("text/html", "")
        for cell in code
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    _, spans, tokens, answer, full, cited = shown
    assert "slots, 4x" in spans
    assert 'class="text"' in spans
    assert tokens.count('<span class="c') > 5 * spans.count('<span class="c')
    assert "from cottage.txt<br>" in answer
    assert "from " not in full.partition("<small>")[2]
    assert "from boat.txt" in cited
