"""Frozen configuration: the architecture of an adapter and the recipe of a run.

Recipes are YAML files that map one to one onto `Recipe`; unknown keys, wrong types
and values out of range are refused with the name of the key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from icae.config.asking import AskingConfig, SpanConfig
from icae.config.data import DataConfig
from icae.config.parsing import Removed, check, check_ranges, from_dict, read_yaml
from icae.config.spans import DEFAULT_RATIO, SpanPlan
from icae.config.types import (
    AnswerMean,
    Compilation,
    Framing,
    LoraTargets,
    MemoryEmbedding,
    MemoryForm,
    Method,
    Objective,
    PositionLayout,
    Sharing,
    SlotHead,
)
from icae.errors import InputError

UNTRAINED = "untrained"
"""What `Recipe.init_adapter` says to fine-tune fresh weights."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of the encoder: everything that decides the shape and meaning of slots.

    Attributes:
        memory: What stands for a span. ``embeddings``: slots that the decoder reads as input
            embeddings (the paper's); ``key-values``: keys and values of every layer.
        span_length: Longest span in context tokens that is encoded in one pass.
        layout: Where memory tokens and slots stand on the position axis.
            ``default``: memory tokens after the context (the paper's);
            ``uniform-encoder``: memory token i at the centre of the i-th chunk of the
            span, decoder positions contiguous; ``uniform``: the same in the decoder too.
        slot_head: How the last hidden state at a memory token becomes a slot. ``plain``: as it
            is (the paper's); ``residual``: each channel brought to half the embedding scale,
            with a learned gain, and added to the mean input embedding of the chunk.
        objective_tokens: Learned vectors of each objective token: [AE] may be several in a row.
        framing: Where the decoder reads them. ``behind`` the memory (the paper's); ``around``:
            also before it, so that what followed them once (the first slot) is what the
            decoder's copying heads look for when they come again. ``between``: as ``around``,
            with other vectors before the memory than behind it.
        lead_slots: Of key-values: learned slots before every memory that is asked or continued,
            not before one that is written back (prefix tuning, Li and Liang 2021,
            arXiv:2101.00190): they carry how to answer.
        previous_spans: Of key-values: how many spans before a span its memory tokens attend to, by
            their slots. 0: spans stand alone, which edits and ratios span by span rest on.
        memory_embedding: ``shared``: one learned vector for every memory token (any K);
            ``per-slot``: one for each slot index, `max_slots` of them.
        max_slots: Memory embeddings kept with ``per-slot``: the most slots of a span.
        lora_rank: Rank r of LoRA on the attention query and value projections.
        lora_alpha: LoRA scale numerator; the update is scaled by alpha / rank.
        lora_targets: ``qv``: query and value projections (the paper's);
            ``all-linear``: every linear layer.
        spans: How a context is cut, and how many slots a span gets.
        asking: How texts and questions become tokens.
    """

    REMOVED: ClassVar = {
        "slot_head": Removed(
            values=("gain", "linear"), why="Without the chunk's mean they learned nothing."
        ),
        "reading": Removed(
            neutral="memory-tokens", why="Mean-pooled slots learned less (docs/training-log.md)."
        ),
        "residual_scale": Removed(neutral=0.5, why="All recipes start the residual head at .5."),
        "residual_decay": Removed(neutral=1.0, why="Decaying weights gained nothing."),
    }

    memory: MemoryForm = "embeddings"
    span_length: int = 512
    layout: PositionLayout = "uniform-encoder"
    slot_head: SlotHead = "residual"
    objective_tokens: int = 1
    framing: Framing = "behind"
    lead_slots: int = 0
    previous_spans: int = 0
    memory_embedding: MemoryEmbedding = "shared"
    max_slots: int = 512
    lora_rank: int = 32
    lora_alpha: float = 32.0
    lora_targets: LoraTargets = "qv"
    spans: SpanConfig = field(default_factory=SpanConfig)
    asking: AskingConfig = field(default_factory=AskingConfig)

    def __post_init__(self) -> None:
        check_ranges(
            "model",
            self,
            at_least_one=("span_length", "objective_tokens", "max_slots", "lora_rank"),
            positive=("lora_alpha",),
        )
        for name in ("lead_slots", "previous_spans"):
            value = getattr(self, name)
            check(
                value == 0 or (value > 0 and self.memory == "key-values"),
                f"model.{name} cannot be had.",
                f"{value}, with memory {self.memory}",
                "0 or more with model.memory: key-values, else 0",
            )
        check(
            self.spans.slots is None or (self.layout == "default" and self.slot_head == "plain"),
            "model.spans.slots cannot be had.",
            f"layout {self.layout}, slot_head {self.slot_head}",
            "layout: default and slot_head: plain, whose slots stand for no chunk of a span",
        )

    def plan(self, length: int, ratio: float) -> tuple[SpanPlan, ...]:
        """The spans of a context of `length` tokens, with their slots at a ratio."""
        return self.spans.plan(length, span_length=self.span_length, ratio=ratio)

    @property
    def own_ratio(self) -> float | None:
        """Context tokens a slot of a full span, where no other ratio can be asked for."""
        return None if self.spans.slots is None else max(1.0, self.span_length / self.spans.slots)

    def ratio_for(self, asked: float | None) -> float:
        """The ratio of a memory, where one was asked for or not.

        Raises:
            InputError: If one was, of an adapter that has its own.
        """
        own = self.own_ratio
        if own is None:
            return DEFAULT_RATIO if asked is None else asked
        if asked is not None:
            raise InputError(
                "This adapter gives every span as many slots.",
                got=f"ratio {asked:g}",
                expected=f"none: spans of up to {self.span_length} tokens become "
                f"{self.spans.slots} slots",
                fix="Leave the ratio out.",
            )
        return own

    @property
    def objective_rows(self) -> int:
        """Learned vectors of each objective."""
        return self.objective_tokens * (2 if self.framing == "between" else 1)

    def behind(self, objective: Objective) -> int:
        """Objective tokens between a memory and what is read behind it."""
        plain = objective == "lm" and self.asking.continuation == "nothing"
        return 0 if plain else self.objective_tokens

    @property
    def front(self) -> int:
        """Decoder places before the memory: the objective tokens that frame it."""
        return 0 if self.framing == "behind" else self.objective_tokens


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the objectives.

    Attributes:
        ae_weight: lambda in ``lambda * L_AE + (1 - lambda) * L_LM``; 1.0 is AE alone.
        recall_weight: Weight of the recall loss beside them: a few tokens of the context are
            given, the tokens that follow them are to be found.
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

    REMOVED: ClassVar = {
        "ae_weight_end": Removed(neutral=None, why="A scheduled lambda gained nothing."),
        "kl_share": Removed(neutral=0.0, why="The loss on the true tokens is as good."),
        "ft_kl_share": Removed(neutral=0.0, why="Distilling the full-context decoder did harm."),
    }

    ae_weight: float = 0.5
    recall_weight: float = 0.0
    ft_share: float = 0.0
    ft_mean: AnswerMean = "tokens"
    reader: Method = "memory"

    def __post_init__(self) -> None:
        for name in ("ae_weight", "ft_share"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"objective.{name} is out of range.", value, "0..1")
        recall = self.recall_weight
        check(recall >= 0, "objective.recall_weight is out of range.", recall, ">= 0")

    @property
    def has_lm(self) -> bool:
        """Whether the continuation loss has weight."""
        return self.ae_weight < 1

    @property
    def has_ae(self) -> bool:
        """Whether the autoencoding loss has weight."""
        return self.ae_weight > 0


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
        warmup_steps: Linear warmup, then cosine to a tenth of the peak.
        clip_norm: Gradient norm at which gradients are clipped.
        seed: Seed of initialisation and sampling.
    """

    REMOVED: ClassVar = {
        "weight_decay": Removed(neutral=0.0, why="No run ever decayed its weights."),
        "final_lr_share": Removed(neutral=0.1, why="Every run ended at a tenth of the peak."),
    }

    steps: int = 1000
    batch_size: int = 16
    micro_batch_size: int = 16
    learning_rate: float = 1e-4
    lora_b_multiplier: float = 1.0
    token_learning_rate: float = 1e-3
    warmup_steps: int = 100
    clip_norm: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            "optim",
            self,
            at_least_one=("steps",),
            at_least_zero=("warmup_steps",),
            positive=("learning_rate", "lora_b_multiplier", "token_learning_rate", "clip_norm"),
        )
        check(
            1 <= self.micro_batch_size <= self.batch_size
            and self.batch_size % self.micro_batch_size == 0,
            "optim.micro_batch_size does not divide optim.batch_size.",
            f"{self.micro_batch_size} into {self.batch_size}",
            "a divisor of batch_size",
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run writes and how often.

    Attributes:
        output: Folder of the run: checkpoints, metrics, plot and the final adapter.
        dtype: Precision of the frozen base weights; the trained weights stay float32.
        log_every: Steps between two lines of metrics.
        log_with: Experiment tracker that gets them beside TensorBoard's files.
        eval_every: Steps between two held-out evaluations (0: only at the end).
        eval_samples: Contexts in one held-out evaluation.
        checkpoint_minutes: Minutes between checkpoints.
        keep_checkpoints: How many of the last checkpoints are kept.
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
    log_with: Literal["tensorboard", "wandb", "trackio"] = "tensorboard"
    eval_every: int = 0
    eval_samples: int = 64
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    gradient_checkpointing: bool = False
    compile: Compilation = "none"
    sharing: Sharing = "replicas"


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
