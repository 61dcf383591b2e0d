"""A tiny Llama, tiny shards and recipes, all made in code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from icae.config import ModelConfig, ObjectiveConfig, OptimConfig, Recipe, RunConfig
from icae.config.data import DataConfig, RatioStage
from icae.data.shards import ShardSet, ShardWriter
from icae.model import IcaeModel, Sample
from icae.model.objectives import autoencoding

VOCAB = 128
SPAN = 16


def make_decoder(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).float().eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words ``w2`` to ``w127`` are tokens 2 to 127."""
    words = {"<unk>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, VOCAB)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>")


class FixedSource:
    """The same samples at every step."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = list(samples)

    def draw(self, step: int) -> list[Sample]:
        return self.samples


@pytest.fixture
def fixed_source() -> type[FixedSource]:
    return FixedSource


@pytest.fixture
def build_model() -> Callable[..., IcaeModel]:
    """``build_model(**model_settings)``: a fresh model, always with the same weights."""

    def build(**settings: Any) -> IcaeModel:
        config = ModelConfig(**{"span_length": SPAN, "lora_rank": 4, "lora_alpha": 4, **settings})
        return IcaeModel(make_decoder(), config, seed=0)

    return build


@pytest.fixture
def build_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """``build_recipe(optim={...}, run={...}, ...)``: a recipe of six steps into tmp_path/run."""

    def build(
        *,
        model: Any = None,
        data: Any = None,
        objective: Any = None,
        optim: Any = None,
        run: Any = None,
        **top: Any,
    ) -> Recipe:
        stage = RatioStage(ratios={2.0: 1.0, 4.0: 1.0})
        return Recipe(
            **{"name": "tiny", "base": "unused", **top},
            model=ModelConfig(
                **{"span_length": SPAN, "lora_rank": 4, "lora_alpha": 4, **(model or {})}
            ),
            data=DataConfig(
                **{
                    "context_lengths": {SPAN: 1.0},
                    "continuation_length": 4,
                    "ratio_curriculum": (stage,),
                    **(data or {}),
                }
            ),
            objective=ObjectiveConfig(**(objective or {})),
            optim=OptimConfig(
                **{
                    "steps": 6,
                    "batch_size": 4,
                    "micro_batch_size": 4,
                    "learning_rate": 1e-3,
                    "token_learning_rate": 5e-3,
                    "warmup_steps": 2,
                    **(optim or {}),
                }
            ),
            run=RunConfig(
                **{
                    "output": str(tmp_path / "run"),
                    "dtype": "float32",
                    "log_every": 1,
                    "eval_samples": 4,
                    **(run or {}),
                }
            ),
        )

    return build


@pytest.fixture
def build_shards(tmp_path: Path) -> Callable[..., ShardSet]:
    """``build_shards(lengths)``: one document for each length, of seeded random ids."""

    def build(
        lengths: Sequence[int] = (40, 60, 25, 80),
        *,
        name: str = "shards",
        tokenizer_hash: str = "tiny",
        seed: int = 0,
    ) -> ShardSet:
        rng = np.random.default_rng(seed)
        with ShardWriter(
            tmp_path / name, vocab_size=VOCAB, tokenizer_hash=tokenizer_hash, shard_tokens=50
        ) as writer:
            for length in lengths:
                writer.add(rng.integers(2, VOCAB, length), source="made up")
            return writer.close()

    return build


@pytest.fixture
def numbered_shards(tmp_path: Path) -> Callable[..., ShardSet]:
    """``numbered_shards(lengths)``: every token of document d is the id d."""

    def build(lengths: Sequence[int]) -> ShardSet:
        with ShardWriter(
            tmp_path / "numbered", vocab_size=VOCAB, tokenizer_hash="tiny", shard_tokens=50
        ) as writer:
            for document, length in enumerate(lengths):
                writer.add([document] * length, source="made up")
            return writer.close()

    return build


@pytest.fixture
def build_sample() -> Callable[..., Sample]:
    """``build_sample(length)``: an AE sample of seeded random ids at 4x."""

    def build(length: int = SPAN, *, ratio: float = 4.0, seed: int = 0) -> Sample:
        ids = np.random.default_rng(seed).integers(2, VOCAB, length)
        return Sample(context_ids=ids, ratio=ratio, tasks=(autoencoding(ids),))

    return build


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny model and its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-base")
    make_decoder().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same architecture and tokenizer with other weights."""
    folder = tmp_path_factory.mktemp("other-base")
    make_decoder(seed=1).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)
