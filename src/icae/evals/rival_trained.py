"""Rivals that were trained: their folders, and who reads with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from icae.config.types import RivalMethod
from icae.engine import Icae
from icae.errors import InputError
from icae.evals.readers import Reader
from icae.evals.rival_autocompressor import AutoCompressorReader
from icae.evals.rival_gist import GistHolder, GistReader
from icae.evals.rival_texts import Holder, SlotHolder
from icae.model import (
    AutoCompressor,
    GistModel,
    RivalInfo,
    RivalModel,
    load_rival,
    read_rival_info,
    rival_hash,
)
from icae.model.rival_folder import TITLES


@dataclass(frozen=True, kw_only=True)
class TrainedRival:
    """A rival ready to be measured.

    Attributes:
        info: What its folder records.
        digest: Hash of its weights.
        reader: Answers questions.
        holder: Holds held-out text.
    """

    info: RivalInfo
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


def _gist(engine: Icae, model: RivalModel) -> tuple[Reader, Holder]:
    own = cast(GistModel, model)
    return GistReader(engine, own), GistHolder(engine, own)


def _autocompressor(engine: Icae, model: RivalModel) -> tuple[Reader, Holder]:
    reader = AutoCompressorReader(engine, cast(AutoCompressor, model))
    return reader, SlotHolder(runtime=reader.runtime, encode=reader.memories)


READS: Mapping[RivalMethod, Callable[[Icae, RivalModel], tuple[Reader, Holder]]] = {
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
    infos = [read_rival_info(folder) for folder in folders]
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
        model, info = load_rival(
            folder,
            engine.runtime.model.decoder,
            base_model=engine.provenance.base_model,
            base_hash=engine.provenance.base_hash,
        )
        reader, holder = READS[info.method](engine, model)
        rivals[name] = TrainedRival(
            info=info, digest=rival_hash(folder), reader=reader, holder=holder
        )
    return rivals
