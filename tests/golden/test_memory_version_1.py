"""Files that the writer of version 1 wrote; the reader has to read them for ever.

They cannot be made again: that writer is gone. Their names do not end in .icae, which
git ignores.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icae.errors import MemoryFileError
from icae.memory import (
    Embeddings,
    Memory,
    MemoryDocument,
    Span,
    hash_token_ids,
    read_header,
)
from icae.memory.provenance import SlotDtype
from word_memories import make_provenance

FOLDER = Path(__file__).parent / "memory_v1"
TEXTS = ("Der Fluß 𝔘nd e\u0301in 漢字-Text.\n", 'plain "quoted" text\x00\t🙂')


SLOTS = ((np.arange(15).reshape(5, 3) - 7) / 8).astype(np.float32)


def span(
    tokens: tuple[int, int],
    chars: tuple[int, int],
    slots: tuple[int, int],
    ratio: float,
    fidelity: float | None,
) -> Span:
    return Span(
        token_start=tokens[0],
        token_end=tokens[1],
        char_start=chars[0],
        char_end=chars[1],
        payload=Embeddings(slots_KD=SLOTS[slice(*slots)]),
        ratio=ratio,
        fidelity=fidelity,
    )


def expected(*, slot_dtype: SlotDtype, first_source: str | None) -> Memory:
    """What the files were made of: 5 slots, exact in bfloat16, of two documents."""
    first = MemoryDocument.of_text(
        TEXTS[0],
        [
            span((0, 4), (0, 10), (0, 2), 2.0, 0.5),
            span((4, 6), (10, len(TEXTS[0])), (2, 3), 2.0, 1.0),
        ],
        name="erste.txt",
        token_ids_sha256=hash_token_ids(np.arange(6)),
    )
    second = MemoryDocument.of_text(
        TEXTS[1],
        [span((0, 3), (0, len(TEXTS[1])), (3, 5), 10 / 3, None)],
        name="second",
        token_ids_sha256=hash_token_ids(np.arange(3)),
    )
    return Memory(
        documents=(replace(first, source=first_source), second.without_source()),
        provenance=replace(make_provenance(), slot_dtype=slot_dtype),
        created_by="icae 0.1.0",
    )


FILES = [
    ("float32.safetensors", expected(slot_dtype="float32", first_source=TEXTS[0])),
    ("bfloat16_without_source.safetensors", expected(slot_dtype="bfloat16", first_source=None)),
]


@pytest.mark.parametrize(("name", "memory"), FILES)
def test_file_of_version_1_is_read_as_a_memory_of_slots(name: str, memory: Memory) -> None:
    loaded = Memory.load(FOLDER / name)

    assert loaded == memory
    assert loaded.token_fidelity is None
    assert (loaded.verbatim_tokens, loaded.positions) == (0, 5)


@pytest.mark.parametrize(("name", "memory"), FILES)
def test_header_of_version_1_says_the_same(name: str, memory: Memory) -> None:
    header = read_header(FOLDER / name)

    assert header.document_of == memory.document_of
    assert [(span.token_end, span.slots, span.ratio, span.fidelity) for span in header.spans] == [
        (span.token_end, span.slots, span.ratio, span.fidelity) for span in memory.spans
    ]
    assert (header.format_version, header.has_token_fidelity) == (1, False)


@pytest.mark.parametrize(("name", "memory"), FILES)
def test_file_of_version_1_is_written_as_the_version_of_now(
    name: str, memory: Memory, tmp_path: Path
) -> None:
    Memory.load(FOLDER / name).save(tmp_path / "m.icae")

    assert read_header(tmp_path / "m.icae").format_version == 4
    assert Memory.load(tmp_path / "m.icae") == memory


@pytest.mark.parametrize(("name", "memory"), FILES)
def test_damaged_file_of_version_1_is_refused(name: str, memory: Memory, tmp_path: Path) -> None:
    content = bytearray((FOLDER / name).read_bytes())
    for position in range(0, len(content), 7):
        content[position] ^= 0xFF
        (tmp_path / "m.icae").write_bytes(content)
        with pytest.raises(MemoryFileError):
            Memory.load(tmp_path / "m.icae")
        content[position] ^= 0xFF
