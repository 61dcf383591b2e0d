"""Frozen configuration: the architecture of an adapter and the recipe of a run.

Recipes are YAML files that map one to one onto `Recipe`; unknown keys, wrong types
and values out of range are refused with the name of the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from icae.config.data import DataConfig
from icae.config.parsing import check, from_dict, read_yaml
from icae.config.types import (
    ANSWER_MEANS,
    COMPILATIONS,
    ENCODER_READINGS,
    FRAMINGS,
    MEMORY_EMBEDDINGS,
    POSITION_LAYOUTS,
    SHARINGS,
    SLOT_HEADS,
    AnswerMean,
    Compilation,
    EncoderReading,
    Framing,
    MemoryEmbedding,
    Objective,
    PositionLayout,
    Sharing,
    SlotHead,
    TrainedReader,
)

UNTRAINED = "untrained"
"""What `Recipe.init_adapter` says to fine-tune fresh weights."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of the encoder: everything that decides the shape and meaning of slots.

    Attributes:
        span_length: Longest span in context tokens that is encoded in one pass.
        layout: Where memory tokens and slots stand on the position axis.
            ``default``: memory tokens after the context (the paper's);
            ``uniform-encoder``: memory token i at the centre of the i-th chunk of the
            span, decoder positions contiguous; ``uniform``: the same in the decoder too.
        slot_head: How the last hidden state becomes a slot. ``plain``: as it is (the
            paper's); ``gain``: each channel brought to the embedding scale, with a learned
            gain; ``residual``: the same, smaller, added to the mean input embedding of the
            chunk; ``linear``: brought to scale, then a learned D x D map.
        reading: What of the encoder becomes a slot. ``memory-tokens``: the last hidden state
            at an appended memory token (the paper's); ``mean-pool``: the mean of the last
            hidden states of the chunk, with attention in both directions and no memory
            tokens.
        objective_tokens: Learned vectors of each objective token: [AE] may be several in a row.
        framing: Where the decoder reads them. ``behind`` the memory (the paper's); ``around``:
            also before it, so that what followed them once (the first slot) is what the
            decoder's copying heads look for when they come again.
        memory_embedding: ``shared``: one learned vector for every memory token (any K);
            ``per-slot``: one for each slot index, `max_slots` of them.
        max_slots: Memory embeddings kept with ``per-slot``: the most slots of a span.
        lora_rank: Rank r of LoRA on the attention query and value projections.
        lora_alpha: LoRA scale numerator; the update is scaled by alpha / rank.
        lora_targets: ``qv``: query and value projections (the paper's);
            ``all-linear``: every linear layer.
        residual_scale: Initial size of the hidden-state term of the ``residual`` head,
            as a share of the embedding scale.
        residual_decay: Weight of each further token of a chunk in the ``residual`` head's
            mean, relative to the token before it; 1 is the plain mean, 0 the first token.
    """

    span_length: int = 512
    layout: PositionLayout = "uniform-encoder"
    slot_head: SlotHead = "residual"
    reading: EncoderReading = "memory-tokens"
    objective_tokens: int = 1
    framing: Framing = "behind"
    memory_embedding: MemoryEmbedding = "shared"
    max_slots: int = 512
    lora_rank: int = 32
    lora_alpha: float = 32.0
    lora_targets: Literal["qv", "all-linear"] = "qv"
    residual_scale: float = 0.5
    residual_decay: float = 1.0

    def __post_init__(self) -> None:
        check(self.span_length >= 1, "model.span_length is out of range.", self.span_length, ">=1")
        check(
            self.objective_tokens >= 1,
            "model.objective_tokens is out of range.",
            self.objective_tokens,
            ">= 1",
        )
        check(
            self.framing in FRAMINGS,
            "model.framing is not known.",
            self.framing,
            ", ".join(FRAMINGS),
        )
        check(self.max_slots >= 1, "model.max_slots is out of range.", self.max_slots, ">= 1")
        check(self.lora_rank >= 1, "model.lora_rank is out of range.", self.lora_rank, ">= 1")
        check(self.lora_alpha > 0, "model.lora_alpha is out of range.", self.lora_alpha, "> 0")
        check(
            self.layout in POSITION_LAYOUTS,
            "model.layout is not known.",
            self.layout,
            ", ".join(POSITION_LAYOUTS),
        )
        check(
            self.slot_head in SLOT_HEADS,
            "model.slot_head is not known.",
            self.slot_head,
            ", ".join(SLOT_HEADS),
        )
        check(
            self.reading in ENCODER_READINGS,
            "model.reading is not known.",
            self.reading,
            ", ".join(ENCODER_READINGS),
        )
        check(
            self.memory_embedding in MEMORY_EMBEDDINGS,
            "model.memory_embedding is not known.",
            self.memory_embedding,
            ", ".join(MEMORY_EMBEDDINGS),
        )

    @property
    def front(self) -> int:
        """Decoder places before the memory: the objective tokens that frame it."""
        return self.objective_tokens if self.framing == "around" else 0


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the objectives.

    Attributes:
        ae_weight: lambda in ``lambda * L_AE + (1 - lambda) * L_LM``; 1.0 is AE alone.
        ae_weight_end: lambda at the last step, reached linearly from `ae_weight`; None keeps
            it constant.
        kl_share: Share of L_LM that is the KL divergence from the decoder that reads the
            full context (0..1); the rest is the loss on the true tokens.
        ft_kl_share: The same for the FT loss; that decoder reads the prompt with the whole
            context in it, and both are compared on the tokens of the answer.
        ft_share: Share of the samples of a step that are instruction triplets (0..1).
            Those carry the FT loss; the others carry the AE + LM loss.
        ft_mean: What the FT loss of a step is the mean of. ``tokens``: all tokens of all
            answers, so that a long answer counts for many short ones; ``answers``: the token
            means of the answers, each alike.
        reader: Who answers the instructions in training. ``memory``: the frozen decoder
            behind a memory, which trains an adapter; ``full-context``: the decoder with a
            LoRA of the same size and the whole context in its prompt, nothing compressed:
            the upper bound of `icae eval qa`. It takes `ft_share` 1.0. ``gist`` and
            ``autocompressor``: rivals of the memory on the same frozen decoder, which
            `icae eval rivals` sets beside it (docs/rivals.md).
    """

    ae_weight: float = 0.5
    ae_weight_end: float | None = None
    kl_share: float = 0.0
    ft_kl_share: float = 0.0
    ft_share: float = 0.0
    ft_mean: AnswerMean = "tokens"
    reader: TrainedReader = "memory"

    def __post_init__(self) -> None:
        for name in ("ae_weight", "ae_weight_end", "kl_share", "ft_kl_share", "ft_share"):
            value = getattr(self, name)
            good = value is None or 0 <= value <= 1
            check(good, f"objective.{name} is out of range.", value, "0..1")
        known = ", ".join(ANSWER_MEANS)
        check(self.ft_mean in ANSWER_MEANS, "objective.ft_mean is not known.", self.ft_mean, known)

    @property
    def kl_shares(self) -> Mapping[Objective, float]:
        """Share of each objective's loss that is a KL divergence, where there is any."""
        shares: dict[Objective, float] = {"lm": self.kl_share, "ft": self.ft_kl_share}
        return {name: share for name, share in shares.items() if share > 0}

    @property
    def has_lm(self) -> bool:
        """Whether the continuation loss ever has weight."""
        return min(self.ae_weight, self.at(1.0)) < 1

    @property
    def has_ae(self) -> bool:
        """Whether the autoencoding loss ever has weight."""
        return max(self.ae_weight, self.at(1.0)) > 0

    def at(self, progress: float) -> float:
        """Lambda at a share of the run (0..1)."""
        end = self.ae_weight if self.ae_weight_end is None else self.ae_weight_end
        return self.ae_weight + (end - self.ae_weight) * progress


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimisation.

    Attributes:
        steps: Optimizer updates in the whole run.
        batch_size: Samples per update, over all processes.
        micro_batch_size: Samples per forward pass, over all processes; the rest is gradient
            accumulation.
        learning_rate: Peak AdamW learning rate of the LoRA weights.
        lora_b_multiplier: Learning rate of the LoRA B matrices as a multiple of
            `learning_rate`, which the A matrices keep (LoRA+, Hayou et al. 2024,
            arXiv:2402.12354).
        token_learning_rate: Peak learning rate of memory tokens, objective tokens and slot head.
        weight_decay: AdamW weight decay.
        warmup_steps: Linear warmup, then cosine to `final_lr_share` of the peak.
        final_lr_share: Learning rate at the end, as a share of the peak.
        clip_norm: Gradient norm at which gradients are clipped.
        seed: Seed of initialisation and sampling.
    """

    steps: int = 1000
    batch_size: int = 16
    micro_batch_size: int = 16
    learning_rate: float = 1e-4
    lora_b_multiplier: float = 1.0
    token_learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 100
    final_lr_share: float = 0.1
    clip_norm: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.steps >= 1, "optim.steps is out of range.", self.steps, ">= 1")
        check(
            1 <= self.micro_batch_size <= self.batch_size
            and self.batch_size % self.micro_batch_size == 0,
            "optim.micro_batch_size does not divide optim.batch_size.",
            f"{self.micro_batch_size} into {self.batch_size}",
            "a divisor of batch_size",
        )
        check(
            self.learning_rate > 0, "optim.learning_rate is out of range.", self.learning_rate, ">0"
        )
        check(
            self.lora_b_multiplier > 0,
            "optim.lora_b_multiplier is out of range.",
            self.lora_b_multiplier,
            "> 0",
        )
        check(
            self.warmup_steps >= 0, "optim.warmup_steps is out of range.", self.warmup_steps, ">=0"
        )
        check(self.clip_norm > 0, "optim.clip_norm is out of range.", self.clip_norm, "> 0")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run writes and how often.

    Attributes:
        output: Folder of the run: checkpoints, metrics, plot and the final adapter.
        dtype: Precision of the frozen base weights; the trained weights stay float32.
        log_every: Steps between two lines of metrics.
        eval_every: Steps between two held-out evaluations (0: only at the end).
        eval_samples: Contexts in one held-out evaluation.
        checkpoint_minutes: Minutes between checkpoints, of which `keep_checkpoints` are kept.
        gradient_checkpointing: Trade compute for memory.
        compile: ``layers``: compile each transformer layer for training (a minute or two at
            the first step of each batch shape, then about a quarter less time a step on a
            CPU); ``none``: run as written. Held-out evaluation never uses compiled layers.
        sharing: How processes share the model. ``replicas``: each holds all of it (DDP);
            ``frozen-shards``: each holds a shard of every layer's frozen weights (FSDP2) and
            gathers a layer when it computes, for bases that leave a GPU too little room.
    """

    output: str = "runs/run"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    log_every: int = 10
    eval_every: int = 0
    eval_samples: int = 64
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    gradient_checkpointing: bool = False
    compile: Compilation = "none"
    sharing: Sharing = "replicas"

    def __post_init__(self) -> None:
        check(
            self.sharing in SHARINGS,
            "run.sharing is not known.",
            self.sharing,
            ", ".join(SHARINGS),
        )
        check(
            self.compile in COMPILATIONS,
            "run.compile is not known.",
            self.compile,
            ", ".join(COMPILATIONS),
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run, complete: what `icae pretrain` and `icae finetune` take.

    Attributes:
        name: Short name, used on the model card.
        description: What the run is for, with hardware, hours and the expected figures.
        base: Base model: ``smollm2-135m-instruct``, a Hugging Face hub id or a folder.
        init_adapter: Adapter folder to start from (required to fine-tune), or None.
            ``untrained`` fine-tunes fresh weights on purpose, to measure what pretraining
            is worth.
    """

    name: str
    description: str = ""
    base: str = "smollm2-135m-instruct"
    init_adapter: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: If it is missing, is not YAML or does not fit `Recipe`.
    """
    return from_dict(Recipe, read_yaml(path), where=str(path))
