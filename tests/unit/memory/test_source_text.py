from __future__ import annotations

import tracemalloc

import pytest
import zstandard

from icae.errors import MemoryFileError
from icae.memory import source_text
from icae.memory.source_text import pack_source, unpack_source


def test_texts_and_gaps_round_trip_though_they_are_longer_than_the_window():
    sources = ["a\x00\r\n", None, "𝔘漢", "", "Ein Fluß. " * 900_000]
    data, size = pack_source(sources)
    assert size > source_text.MAX_WINDOW_BYTES
    assert unpack_source(data, source_bytes=size, documents=5) == sources


def test_bomb_is_stopped_at_the_declared_size():
    bomb = zstandard.compress(bytes(50_000_000))
    assert len(bomb) < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="longer than the 100 bytes"):
            unpack_source(bomb, source_bytes=100, documents=1)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_huge_declared_size_is_refused_before_decompression():
    with pytest.raises(ValueError, match="at most"):
        unpack_source(b"", source_bytes=2**30 + 1, documents=1)


def test_huge_window_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=24, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(b'["x"]') + compressor.flush()
    with pytest.raises(ValueError, match="memory"):
        unpack_source(data, source_bytes=5, documents=1)


@pytest.mark.parametrize("text", [b'["a"]', b"[1,null]", b'{"a":"b"}', b"[", b'["\xff",null]'])
def test_text_that_is_not_a_list_of_texts_is_refused(text):
    data = zstandard.compress(text)
    with pytest.raises(ValueError):  # noqa: PT011 (any ValueError is what the caller handles)
        unpack_source(data, source_bytes=len(text), documents=2)


@pytest.mark.parametrize("cut", [0, 3, 12, -1])
def test_cut_frame_is_refused(cut):
    data, size = pack_source(["some text to compress"])
    with pytest.raises(ValueError):  # noqa: PT011 (any ValueError is what the caller handles)
        unpack_source(data[:cut], source_bytes=size, documents=1)


def test_too_much_text_for_one_file_is_refused(monkeypatch):
    monkeypatch.setattr(source_text, "MAX_SOURCE_BYTES", 10)
    with pytest.raises(MemoryFileError, match="without its source"):
        pack_source(["more than ten bytes"])
