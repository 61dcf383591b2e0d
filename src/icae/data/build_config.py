"""Declarative configuration of a data build: one YAML file, every key checked.

Paths are relative to the folder in which the command runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from icae.config.parsing import from_dict, read_yaml
from icae.data.cleaning import CleaningConfig
from icae.data.contamination import ContaminationConfig
from icae.data.dedup import DedupConfig
from icae.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of the mixture.

    Attributes:
        name: Its name in reports and in the index of the shards.
        paths: Corpus files, folders and datasets (``hf:owner/name[:config][:split]``).
        weight: Weight by tokens; the share is this over the sum of all weights.
        repeat: Most times that a document may be used, if the source is too small.
    """

    name: str
    paths: tuple[str, ...]
    weight: float
    repeat: int = 1

    def __post_init__(self) -> None:
        if not self.name or not self.paths or self.weight <= 0 or self.repeat < 1:
            raise ConfigError(
                "A source is out of range.",
                got=repr(self),
                expected="a name, at least one path, weight > 0, repeat >= 1",
            )


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
        chunk_characters: Characters after which intermediate results are saved: what a
            killed build may have to do again.
        cleaning: When a document is dropped.
        dedup: What a near duplicate is.
        contamination: Evaluation sets whose text is cut out.
    """

    description: str = ""
    base: str = "smollm2-135m-instruct"
    seed: int = 0
    sources: tuple[SourceConfig, ...]
    tokens: int | None = None
    validation_share: float = 0.01
    min_tokens: int = 32
    chunk_characters: int = 32_000_000
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names or len(set(names)) != len(names) or "evaluation" in names:
            expected = "at least one source, each with its own name (not 'evaluation')"
            raise ConfigError("sources cannot be used.", got=repr(names), expected=expected)
        if self.tokens is not None and self.tokens < 1:
            raise ConfigError("tokens is out of range.", got=str(self.tokens), expected=">= 1")
        if not 0 <= self.validation_share < 1:
            got = str(self.validation_share)
            raise ConfigError("validation_share is out of range.", got=got, expected="0 <= x < 1")
        if self.min_tokens < 1 or self.chunk_characters < 1:
            got = f"min_tokens {self.min_tokens}, chunk_characters {self.chunk_characters}"
            raise ConfigError("A number is out of range.", got=got, expected="both >= 1")


def load_build_config(path: str | Path) -> BuildConfig:
    """Read the YAML file of a build.

    Args:
        path: The file.

    Raises:
        ConfigError: If it is missing, is not YAML or does not fit `BuildConfig`.
    """
    return from_dict(BuildConfig, read_yaml(path), where=str(path))
