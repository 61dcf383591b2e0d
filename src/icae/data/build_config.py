"""A data build as it is asked for: one YAML file, every key checked, and its inputs hashed.

Paths are relative to the folder in which the command runs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from icae.config.parsing import check, from_dict, read_yaml, to_dict
from icae.data.contamination import ContaminationConfig
from icae.data.corpus import list_corpus
from icae.data.rows import file_hash

PIPELINE_VERSION = 1
EVALUATION = "evaluation"


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of the mixture.

    Attributes:
        name: Its name in reports and in the index of the shards.
        paths: Corpus files and folders.
        weight: Weight by tokens; the share is this over the sum of all weights.
        repeat: Most times that a document may be used, if the source is too small.
    """

    name: str
    paths: tuple[str, ...]
    weight: float
    repeat: int = 1

    def __post_init__(self) -> None:
        fits = self.name and self.paths and self.weight > 0 and self.repeat >= 1
        expected = "a name, at least one path, weight > 0, repeat >= 1"
        check(bool(fits), "A source is out of range.", self, expected)


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """One data build, complete: what `icae data build` takes.

    Attributes:
        description: What the mixture is for.
        base: Base model whose tokenizer cuts the text into tokens.
        seed: Seed of signatures, split and choice.
        sources: The sources; of duplicates the first one in this order is kept.
        tokens: Training tokens in all, or None for as many as the shares allow.
        validation_share: Share of the documents held out for validation (0..1).
        min_tokens: Shorter documents, and pieces of documents, are left out.
        contamination: Evaluation sets whose text is cut out.
    """

    description: str = ""
    base: str = "smollm2-135m-instruct"
    seed: int = 0
    sources: tuple[SourceConfig, ...]
    tokens: int | None = None
    validation_share: float = 0.01
    min_tokens: int = 32
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        usable = names and len(set(names)) == len(names) and EVALUATION not in names
        expected = f"at least one source, each with its own name (not {EVALUATION!r})"
        check(bool(usable), "sources cannot be used.", names, expected)
        tokens, share = self.tokens, self.validation_share
        check(tokens is None or tokens >= 1, "tokens is out of range.", tokens, ">= 1")
        check(0 <= share < 1, "validation_share is out of range.", share, "0 <= x < 1")
        check(self.min_tokens >= 1, "min_tokens is out of range.", self.min_tokens, ">= 1")


def load_build_config(path: str | Path) -> BuildConfig:
    """Read the YAML file of a build.

    Raises:
        ConfigError: If it is missing, is not YAML or does not fit `BuildConfig`.
    """
    return from_dict(BuildConfig, read_yaml(path), where=str(path))


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One input of a build.

    Attributes:
        role: Source that it belongs to, or ``evaluation``.
        path: The file.
        sha256: Its digest.
    """

    role: str
    path: str
    sha256: str


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


def identify(config: BuildConfig, *, tokenizer_hash: str) -> Identity:
    """List and hash the inputs of a build.

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
            InputFile(role=role, path=path, sha256=file_hash(Path(path))) for role, path in listed
        ),
    )
