"""A file that the writer of version 2 wrote: slots, a verbatim span, measured tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from icae.memory import Memory, read_header

FILE = Path(__file__).parent / "memory_v2" / "mixed.safetensors"


def test_file_of_version_2_is_read_as_a_memory_that_was_not_written_back() -> None:
    memory = Memory.load(FILE)

    assert read_header(FILE).format_version == 2
    assert [span.kind for span in memory.spans] == ["slots", "tokens", "slots"]
    assert [span.written_back for span in memory.spans] == [None, None, None]
    assert [span.is_exact for span in memory.spans] == [False, True, False]
    assert [span.fidelity for span in memory.spans] == [0.75, 1.0, 1 / 3]
    assert (memory.spans[0].refine_steps, memory.spans[0].refine_seconds) == (7, 0.5)
    assert memory.verbatim_ids.tolist() == [17, 65535]
    assert memory.token_fidelity is not None
    assert memory.token_fidelity.confidence.tolist() == [250, 200, 10, 128, 255, 255, 0, 1, 254]
    expected = ((np.arange(12).reshape(4, 3) - 7) / 8).astype(np.float32)
    np.testing.assert_array_equal(memory.slots, expected)


def test_file_of_version_2_is_written_as_the_version_of_now(tmp_path: Path) -> None:
    memory = Memory.load(FILE)
    memory.save(tmp_path / "m.icae")

    assert read_header(tmp_path / "m.icae").format_version == 4
    assert Memory.load(tmp_path / "m.icae") == memory
