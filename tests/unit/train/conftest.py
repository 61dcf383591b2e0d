"""A tiny Llama, tiny shards and recipes, all made in code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from icae.config import ModelConfig, ObjectiveConfig, OptimConfig, Recipe, RunConfig
from icae.config.data import DataConfig, RatioStage
from icae.data.shards import ShardSet, ShardWriter
from icae.model.icae import IcaeModel
from icae.model.objectives import Sample, autoencoding

VOCAB = 128
SPAN = 16
MODEL = {"span_length": SPAN, "lora_rank": 4, "lora_alpha": 4}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words ``w2`` to ``w127`` are tokens 2 to 127."""
    words = {"<unk>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, VOCAB)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>")


@dataclass(frozen=True)
class FixedSource:
    """The same samples at every step."""

    samples: list[Sample]

    def draw(self, step: int) -> list[Sample]:
        return self.samples


@dataclass(frozen=True)
class Tiny:
    """Everything that a run needs, in one folder."""

    folder: Path
    build_decoder: Callable[..., Any]
    source = FixedSource

    def model(self, **settings: Any) -> IcaeModel:
        """A fresh model, always with the same weights."""
        return IcaeModel(self.build_decoder(), ModelConfig(**{**MODEL, **settings}), seed=0)

    def recipe(
        self,
        *,
        model: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        objective: Mapping[str, Any] | None = None,
        optim: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        **top: Any,
    ) -> Recipe:
        """A recipe of six steps into the folder ``run``."""
        cut = {
            "context_lengths": {SPAN: 1.0},
            "continuation_length": 4,
            "ratio_curriculum": (RatioStage(ratios={2.0: 1.0, 4.0: 1.0}),),
        }
        steps = {"steps": 6, "batch_size": 4, "micro_batch_size": 4, "warmup_steps": 2}
        rates = {"learning_rate": 1e-3, "token_learning_rate": 5e-3}
        output = {"output": str(self.folder / "run"), "dtype": "float32"}
        return Recipe(
            **{"name": "tiny", "base": "unused", **top},
            model=ModelConfig(**{**MODEL, **(model or {})}),
            data=DataConfig(**{**cut, **(data or {})}),
            objective=ObjectiveConfig(**(objective or {})),
            optim=OptimConfig(**{**steps, **rates, **(optim or {})}),
            run=RunConfig(**{**output, "log_every": 1, "eval_samples": 4, **(run or {})}),
        )

    def shards(
        self,
        lengths: Sequence[int] = (40, 60, 25, 80),
        *,
        name: str = "shards",
        tokenizer_hash: str = "tiny",
        seed: int = 0,
    ) -> ShardSet:
        """One document for each length, of seeded random ids."""
        rng, folder = np.random.default_rng(seed), self.folder / name
        with ShardWriter(
            folder, vocab_size=VOCAB, tokenizer_hash=tokenizer_hash, shard_tokens=50
        ) as writer:
            for length in lengths:
                writer.add(rng.integers(2, VOCAB, length), source="made up")
        return ShardSet.open(folder)

    def sample(self, length: int = SPAN, *, ratio: float = 4.0, seed: int = 0) -> Sample:
        """An AE sample of seeded random ids."""
        ids = np.random.default_rng(seed).integers(2, VOCAB, length)
        return Sample(context_ids=ids, ratio=ratio, tasks=(autoencoding(ids),))


@pytest.fixture
def tiny(tmp_path: Path, build_decoder: Callable[..., Any]) -> Tiny:
    return Tiny(tmp_path, build_decoder)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def save_base(
    tmp_path_factory: pytest.TempPathFactory, build_decoder: Callable[..., Any]
) -> Callable[[int], str]:
    """``save_base(seed)``: folder of the tiny model and its tokenizer."""

    def save(seed: int) -> str:
        folder = tmp_path_factory.mktemp("base")
        build_decoder(seed=seed).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def tiny_base(save_base: Callable[[int], str]) -> str:
    """Folder of the tiny model and its tokenizer."""
    return save_base(0)


@pytest.fixture(scope="session")
def other_base(save_base: Callable[[int], str]) -> str:
    """The same architecture and tokenizer with other weights."""
    return save_base(1)
