"""Rivals that were trained: GIST and AutoCompressor, read by the frozen decoder.

How they are trained, and what a frozen decoder means for them: docs/rivals.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from icae.config.types import TokenIds
from icae.decode.torch import TorchRuntime
from icae.engine import Engine
from icae.errors import InputError
from icae.evals.decoding import ContextMemory
from icae.evals.held import HeldGists, HeldSlots, Hold
from icae.memory import Embeddings
from icae.model.adapter import load_trained
from icae.model.adapter_files import RIVAL, TITLES, AdapterInfo, adapter_hash, read_info
from icae.model.autocompressor import AutoCompressor
from icae.model.gist import GistMemory, GistModel


@dataclass(frozen=True, kw_only=True)
class TrainedRival:
    """A rival ready to be measured.

    Attributes:
        info: What its folder records.
        digest: Hash of its weights.
        hold: Reads contexts.
    """

    info: AdapterInfo
    digest: str
    hold: Hold

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

    def note(self, name: str) -> str:
        """How it was trained, for people."""
        record = self.record
        return (
            f"{name}: {record['name']}, trained by the same loop with the decoder frozen: LoRA "
            f"rank {record['lora_rank']}, {record['updates']:g} updates of "
            f"{record['batch_size']} samples."
        )


def load_rivals(engine: Engine, folders: Sequence[Path]) -> dict[str, TrainedRival]:
    """Trained rivals by their names in tables; where several are of one method, with their own.

    Args:
        engine: Its frozen decoder reads with all of them.
        folders: Their folders.

    Raises:
        AdapterError: If a folder is not that of a rival, or of one of another base model.
        InputError: If two would have one name.
    """
    infos = [read_info(folder, RIVAL) for folder in folders]
    methods = Counter(info.method for info in infos)
    places: dict[str, Path] = {}
    rivals: dict[str, TrainedRival] = {}
    for info, folder in zip(infos, folders, strict=True):
        name = TITLES[info.method]
        name = name if methods[info.method] == 1 else f"{name} ({info.name})"
        if name in places:
            raise InputError(
                "Two trained rivals have one name.",
                got=f"{places[name]} and {folder}, both {info.name}",
                fix="Train one of them with another name in its recipe, or leave it out.",
            )
        places[name] = folder
        hold = _hold(engine, info, folder)
        rivals[name] = TrainedRival(info=info, digest=adapter_hash(folder, RIVAL), hold=hold)
    return rivals


def _hold(engine: Engine, info: AdapterInfo, folder: Path) -> Hold:
    made = engine.provenance
    base = {"base_model": made.base_model, "base_hash": made.base_hash}
    decoder = engine.runtime.model.decoder
    if info.method == "gist":
        return gist_hold(engine, load_trained(GistModel, info, folder, decoder, **base))
    return summary_hold(engine, load_trained(AutoCompressor, info, folder, decoder, **base))


def summary_hold(engine: Engine, model: AutoCompressor) -> Hold:
    """AutoCompressor: contexts as accumulated summary vectors."""
    runtime = TorchRuntime(model)
    answerer = replace(engine.answerer, runtime=runtime)

    @torch.inference_mode()
    def hold(contexts: Sequence[TokenIds], ratio: float) -> HeldSlots:
        memories: list[ContextMemory] = []
        for part in runtime.batches([len(ids) for ids in contexts]):
            for made in model.encode(contexts[part], [ratio] * len(contexts[part])):
                slots = Embeddings(slots_KD=made.slots_KD.float().cpu().numpy())
                memories.append(ContextMemory(parts=(slots,), spans=tuple(made.spans)))
        return HeldSlots(runtime=runtime, answerer=answerer, memories=tuple(memories))

    return hold


def gist_hold(engine: Engine, model: GistModel) -> Hold:
    """GIST: contexts as the keys and values of gist tokens."""

    @torch.inference_mode()
    def hold(contexts: Sequence[TokenIds], ratio: float) -> HeldGists:
        gists: list[GistMemory] = []
        for part in engine.runtime.batches([len(ids) for ids in contexts]):
            gists += model.encode(contexts[part], [ratio] * len(contexts[part]))
        lengths = tuple(len(ids) for ids in contexts)
        return HeldGists(engine=engine, model=model, gists=tuple(gists), lengths=lengths)

    return hold
