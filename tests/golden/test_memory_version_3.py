"""Files that the writer of version 3 wrote: slots, verbatim spans, and verbatim spans alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from icae.errors import MemoryFileError
from icae.memory import Memory, read_header

FOLDER = Path(__file__).parent / "memory_v3"


def test_file_of_version_3_is_read_as_a_memory_of_embeddings_that_was_not_asked() -> None:
    memory = Memory.load(FOLDER / "mixed.safetensors")

    assert read_header(FOLDER / "mixed.safetensors").format_version == 3
    assert memory.provenance.key_values is None
    assert [span.kind for span in memory.spans] == ["slots", "tokens", "slots"]
    assert [span.written_back for span in memory.spans] == [False, None, True]
    assert [span.recall for span in memory.spans] == [None, None, None]
    expected = ((np.arange(12).reshape(4, 3) - 7) / 8).astype(np.float32)
    np.testing.assert_array_equal(memory.slots, expected)


def test_file_of_version_3_without_slots_is_read() -> None:
    memory = Memory.load(FOLDER / "verbatim.safetensors")
    assert (memory.slot_count, memory.verbatim_ids.tolist()) == (0, [17, 65535])


@pytest.mark.parametrize("name", ["mixed.safetensors", "verbatim.safetensors"])
def test_file_of_version_3_is_written_as_the_version_of_now(name: str, tmp_path: Path) -> None:
    memory = Memory.load(FOLDER / name)
    memory.save(tmp_path / "m.icae")

    assert read_header(tmp_path / "m.icae").format_version == 4
    assert Memory.load(tmp_path / "m.icae") == memory


def test_any_flipped_byte_of_version_3_is_refused(tmp_path: Path) -> None:
    content = bytearray((FOLDER / "mixed.safetensors").read_bytes())
    for position in range(0, len(content), 5):
        content[position] ^= 1 << position % 8
        (tmp_path / "m.icae").write_bytes(content)
        with pytest.raises(MemoryFileError):
            Memory.load(tmp_path / "m.icae")
        content[position] ^= 1 << position % 8
