"""Rivals that were trained: their folders, and who reads with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from icae.config.types import Method
from icae.engine import Icae
from icae.errors import InputError
from icae.evals.readers import Reader
from icae.evals.rival_autocompressor import AutoCompressorReader
from icae.evals.rival_gist import GistHolder, GistReader
from icae.evals.rival_texts import Holder, SlotHolder
from icae.model import (
    AdapterInfo,
    AutoCompressor,
    GistModel,
    adapter_hash,
    load_trained,
    read_info,
)
from icae.model.adapted_decoder import AdaptedDecoder
from icae.model.adapter_files import RIVAL, TITLES

Model = TypeVar("Model", bound=AdaptedDecoder)


@dataclass(frozen=True, kw_only=True)
class TrainedRival:
    """A rival ready to be measured.

    Attributes:
        info: What its folder records.
        digest: Hash of its weights.
        reader: Answers questions.
        holder: Holds held-out text.
    """

    info: AdapterInfo
    digest: str
    reader: Reader
    holder: Holder

    @property
    def record(self) -> dict[str, Any]:
        """What a result says about it."""
        optim, training = self.info.recipe.get("optim", {}), self.info.metrics
        return {
            "name": self.info.name,
            "method": self.info.method,
            "hash": self.digest,
            "lora_rank": self.info.model.lora_rank,
            "updates": training.get("step"),
            "batch_size": optim.get("batch_size"),
            "train_hours": training.get("train_hours"),
        }


def _gist(engine: Icae, info: AdapterInfo, folder: Path) -> tuple[Reader, Holder]:
    model = _load(GistModel, engine, info, folder)
    return GistReader(engine, model), GistHolder(engine, model)


def _autocompressor(engine: Icae, info: AdapterInfo, folder: Path) -> tuple[Reader, Holder]:
    reader = AutoCompressorReader(engine, _load(AutoCompressor, engine, info, folder))
    return reader, SlotHolder(runtime=reader.runtime, encode=reader.memories)


def _load(make: type[Model], engine: Icae, info: AdapterInfo, folder: Path) -> Model:
    base = engine.provenance
    return load_trained(
        make,
        info,
        folder,
        engine.runtime.model.decoder,
        base_model=base.base_model,
        base_hash=base.base_hash,
    )


READS: Mapping[Method, Callable[[Icae, AdapterInfo, Path], tuple[Reader, Holder]]] = {
    "gist": _gist,
    "autocompressor": _autocompressor,
}
"""Method -> who reads and who holds text with such a model."""


def rival_names(folders: Sequence[Path]) -> dict[str, Path]:
    """Names of trained rivals in tables; where several are of one method, with their own.

    Args:
        folders: Their folders.

    Raises:
        AdapterError: If a folder is not that of a rival.
        InputError: If two would have one name.
    """
    infos = [read_info(folder, RIVAL) for folder in folders]
    methods = Counter(info.method for info in infos)
    names: dict[str, Path] = {}
    for info, folder in zip(infos, folders, strict=True):
        name = TITLES[info.method]
        name = name if methods[info.method] == 1 else f"{name} ({info.name})"
        if name in names:
            raise InputError(
                "Two trained rivals have one name.",
                got=f"{names[name]} and {folder}, both {info.name}",
                fix="Train one of them with another name in its recipe, or leave it out.",
            )
        names[name] = folder
    return names


def load_rivals(engine: Icae, folders: Sequence[Path]) -> dict[str, TrainedRival]:
    """Trained rivals by name.

    Args:
        engine: Its frozen decoder reads with all of them.
        folders: Their folders.

    Raises:
        AdapterError: If a folder is not that of a rival, or of one of another base model.
        InputError: If two would have one name.
    """
    rivals = {}
    for name, folder in rival_names(folders).items():
        info = read_info(folder, RIVAL)
        reader, holder = READS[info.method](engine, info, folder)
        rivals[name] = TrainedRival(
            info=info, digest=adapter_hash(folder, RIVAL), reader=reader, holder=holder
        )
    return rivals
