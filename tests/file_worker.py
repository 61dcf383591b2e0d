"""A process that edits one memory file again and again: ``file_worker.py FILE NAME ROUNDS``.

It prints the name of each document that it added, or ``refused``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from icae.errors import MemoryFileError
from icae.memory import locked
from word_memories import word_memory


def edit(path: Path, worker: str, rounds: int) -> None:
    for number in range(rounds):
        name = f"{worker}-{number}"
        try:
            with locked(path) as file:
                file.save(file.load() + word_memory(f"words of {name}", name=name))
        except MemoryFileError:
            name = "refused"
        print(name, flush=True)


if __name__ == "__main__":
    edit(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
