from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from icae.config.atomic_write import write_atomically


def test_parts_are_written_in_order_to_a_file_like_any_other(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "a", [b"one ", b"", b"two"])
    assert (tmp_path / "a").read_bytes() == b"one two"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a", tmp_path / "plain"]
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def interrupted() -> Iterator[bytes]:
    yield b"new"
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("parts", "error"),
    [([bytes(500_000)] * 3, OSError), (interrupted(), KeyboardInterrupt)],
    ids=["the disk is full", "interrupted"],
)
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, parts, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(error):
            write_atomically(path, parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_disk_before_the_name_and_the_name_after(tmp_path, monkeypatch):
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        calls.append("fsync folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "fsync")
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_atomically(tmp_path / "a", [b"x"])
    assert calls == ["fsync", "replace", "fsync folder"]
