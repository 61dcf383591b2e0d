"""The input files of a data build and their digests: what a build may be continued with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from icae.config.parsing import to_dict
from icae.data.build_config import BuildConfig
from icae.data.corpus import list_corpus
from icae.data.hf_dataset import is_dataset, parse_dataset

PIPELINE_VERSION = 1
EVALUATION = "evaluation"


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One input of a build.

    Attributes:
        role: Source that it belongs to, or ``evaluation``.
        path: File or dataset, as it is read.
        sha256: Digest of the file or local dataset; None for one on the hub, which only its
            revision pins down.
    """

    role: str
    path: str
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What decides the result of a build, byte for byte.

    Attributes:
        pipeline: Version of the code.
        config_sha256: Digest of the configuration.
        tokenizer_hash: Hash of the tokenizer.
        inputs: The input files in order.
    """

    pipeline: int
    config_sha256: str
    tokenizer_hash: str
    inputs: tuple[InputFile, ...]

    def difference(self, other: Identity) -> str | None:
        """Name what differs from another build, or None if nothing does."""
        if self.pipeline != other.pipeline:
            return "another version of icae"
        if self.config_sha256 != other.config_sha256:
            return "another configuration"
        if self.tokenizer_hash != other.tokenizer_hash:
            return "another tokenizer"
        for mine, theirs in zip(self.inputs, other.inputs, strict=False):
            if mine != theirs:
                return f"another content of {theirs.path}"
        return None if self.inputs == other.inputs else "other input files"


def identify(config: BuildConfig, *, tokenizer_hash: str) -> Identity:
    """List and hash the inputs of a build.

    Args:
        config: The build.
        tokenizer_hash: Hash of its tokenizer.

    Raises:
        InputError: If a path is missing or is not a corpus.
    """
    listed = [
        (source.name, str(file)) for source in config.sources for file in list_corpus(source.paths)
    ]
    listed += [(EVALUATION, str(file)) for file in list_corpus(config.contamination.against)]
    text = json.dumps(to_dict(config), sort_keys=True, ensure_ascii=False)
    return Identity(
        pipeline=PIPELINE_VERSION,
        config_sha256=hashlib.sha256(text.encode()).hexdigest(),
        tokenizer_hash=tokenizer_hash,
        inputs=tuple(
            InputFile(role=role, path=path, sha256=source_digest(path)) for role, path in listed
        ),
    )


def source_digest(path: str) -> str | None:
    """SHA-256 of a corpus file or local dataset; None for a dataset on the hub.

    Args:
        path: As `icae.data.corpus.list_corpus` gives it.
    """
    if not is_dataset(path):
        return _file_digest(Path(path))
    spec = parse_dataset(path)
    if not spec.local:
        return None
    total = hashlib.sha256()
    for file in sorted(one for one in Path(spec.name).rglob("*") if one.is_file()):
        name = file.relative_to(spec.name).as_posix()
        total.update(f"{name}:{_file_digest(file)}\n".encode())
    return total.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
