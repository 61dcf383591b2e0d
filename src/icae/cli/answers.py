"""What `icae ask` and `icae chat` share: answers as they come, and `--kv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typer import BadParameter

from icae.cli import console
from icae.errors import IcaeError

if TYPE_CHECKING:
    from icae.config.types import Answer
    from icae.decode.reader import Reader
    from icae.memory import Memory

Mode = Literal["memory", "full-context"]
"""What answers are read from."""

Keep = Literal["renew", "always"]
"""Whether a cache is written only in place of one that does not fit, or in any case."""

Writer = Callable[[str], None]


def answered(
    question: str, ask: Callable[[Writer | None], Answer], *, mode: Mode, as_json: bool
) -> dict[str, Any]:
    """Ask a question; without JSON, print the answer as it comes, then its figures.

    Of the answer as ``--json`` prints it, ``tokens.prompt`` counts all decoder positions before the
    answer, ``tokens.memory`` those of them that stand for the context.
    """
    answer = ask(None if as_json else console.write_text)
    if not as_json:
        what = "of the memory" if mode == "memory" else "context tokens"
        cut = "" if answer.finished else "; cut at --max-new-tokens"
        console.write_text("\n")
        console.note(
            f"{answer.prompt_tokens} decoder positions ({answer.memory_positions} {what}), "
            f"{answer.answer_tokens} answer tokens, {answer.seconds:.2f} s "
            f"(first token {answer.first_token_seconds:.2f} s), {answer.runtime}{cut}"
        )
    return {
        "answer": answer.text,
        "question": question,
        "mode": mode,
        "tokens": {
            "memory": answer.memory_positions,
            "prompt": answer.prompt_tokens,
            "answer": answer.answer_tokens,
        },
        "seconds": round(answer.seconds, 3),
        "first_token_seconds": round(answer.first_token_seconds, 3),
        "finished": answer.finished,
        "runtime": answer.runtime,
    }


def require_one_file(memories: Sequence[Path], mode: Mode) -> None:
    """Refuse ``--kv`` where there is no one memory file to keep a cache beside."""
    if len(memories) != 1 or mode != "memory":
        raise BadParameter(
            "a key-value cache is kept for one memory file that is asked.", param_hint="--kv"
        )


def use_kv(icae: Reader, memory: Memory, path: Path, *, keep: Keep) -> None:
    """Take the cache beside a memory, and write it where it is missing or does not fit.

    A cache that cannot be written never stands in the way of an answer; of keys and values none
    is kept, as they are one.
    """
    from icae.decode import kv_file

    if all(span.kind == "key-values" for span in memory.spans):
        if keep == "always":
            console.note("No key-value cache was kept: the memory is one.")
        return

    state = kv_file.load_kv(icae, memory, path)
    if state == "loaded" or (state == "absent" and keep == "renew"):
        return
    try:
        with console.status("Reading the memory"):
            written = kv_file.store_kv(icae, memory, path)
    except IcaeError as error:
        console.note(f"No key-value cache was kept: {error.message}")
    else:
        console.note(f"Key-value cache kept in {written}")
