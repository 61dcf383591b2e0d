"""The decoder's key-value cache of a memory, kept in a file beside it.

A question about the memory then starts decoding at once. What does not belong to this memory,
these weights and this runtime is ignored with a warning, and can be written anew.

    icae-kv 1
    {"key": ..., "bytes": ..., "sha256": ...}
    <the bytes, as the runtime gave them>
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Literal

from icae.config.atomic_write import write_atomically
from icae.decode.reader import Reader
from icae.errors import IcaeError, MemoryFileError
from icae.memory import Memory

MAGIC = b"icae-kv 1\n"
LONGEST_HEADER = 4096

KvState = Literal["absent", "loaded", "unusable"]
"""What became of a file: there was none, it was taken, or it does not fit or is damaged."""

log = logging.getLogger(__name__)


def kv_path(memory_path: Path, reader: Reader) -> Path:
    """Where the cache of a memory file lies: one file for each kind of runtime."""
    family = reader.decoder.name.split()[0]
    return memory_path.with_name(f"{memory_path.name}.{family}.kv")


def load_kv(reader: Reader, memory: Memory, memory_path: Path) -> KvState:
    """Take the cache beside a memory file, if there is one that fits; else a warning says why."""
    path = kv_path(memory_path, reader)
    try:
        if not path.exists():
            return "absent"
        data = _payload(path.read_bytes(), _key(reader, memory))
        reader.load_kv(memory, data)
    except (OSError, ValueError, IcaeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.warning("%s is not used: %s", path, reason)
        return "unusable"
    return "loaded"


def store_kv(reader: Reader, memory: Memory, memory_path: Path) -> Path:
    """Write the cache of a memory beside its file, whole or not at all, and return the path.

    The memory is read first, unless it was just read.

    Raises:
        MemoryFileError: If the file cannot be written; else as for `Reader.save_kv`.
    """
    path = kv_path(memory_path, reader)
    data = reader.save_kv(memory)
    header = {
        "key": _key(reader, memory),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    try:
        write_atomically(path, [MAGIC, json.dumps(header).encode() + b"\n", data])
    except OSError as error:
        raise MemoryFileError(
            "The key-value cache cannot be written.", got=f"{path}: {error.strerror}"
        ) from error
    return path


def _key(reader: Reader, memory: Memory) -> str:
    """Digest of everything that decides the bytes: memory, weights, objective, runtime."""
    own = reader.provenance
    digest, form = reader.memory_digest(memory), reader.decoder.kv_format
    parts = (digest, own.base_hash, own.adapter_hash, form)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _payload(content: bytes, key: str) -> bytes:
    """The bytes of a file; a ValueError if it is foreign, damaged or of something else."""
    if not content.startswith(MAGIC):
        raise ValueError("it is no key-value cache of icae")
    end = content.find(b"\n", len(MAGIC), len(MAGIC) + LONGEST_HEADER)
    if end < 0:
        raise ValueError("it is damaged")
    header = json.loads(content[len(MAGIC) : end])
    if not isinstance(header, dict) or header.get("key") != key:
        raise ValueError("it belongs to another memory, model or runtime")
    data = content[end + 1 :]
    if len(data) != header.get("bytes") or hashlib.sha256(data).hexdigest() != header.get("sha256"):
        raise ValueError("it is damaged")
    return data
