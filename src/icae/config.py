"""Frozen configuration: the architecture of an adapter and the recipe of a run.

Recipes are YAML files that map one to one onto `Recipe`; unknown keys, wrong types
and values out of range are refused with the name of the key.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from icae.errors import ConfigError
from icae.spans import check_ratio
from icae.types import (
    MEMORY_EMBEDDINGS,
    POSITION_LAYOUTS,
    SLOT_HEADS,
    MemoryEmbedding,
    PositionLayout,
    SlotHead,
)

T = TypeVar("T")


def _check(condition: bool, message: str, got: object, expected: str) -> None:
    if not condition:
        raise ConfigError(message, got=repr(got), expected=expected)


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
        memory_embedding: ``shared``: one learned vector for every memory token (any K);
            ``per-slot``: one for each slot index, `max_slots` of them.
        max_slots: Memory embeddings kept with ``per-slot``: the most slots of a span.
        lora_rank: Rank r of LoRA on the attention query and value projections.
        lora_alpha: LoRA scale numerator; the update is scaled by alpha / rank.
        lora_targets: ``qv``: query and value projections (the paper's);
            ``all-linear``: every linear layer.
        residual_scale: Initial size of the hidden-state term of the ``residual`` head,
            as a share of the embedding scale.
    """

    span_length: int = 512
    layout: PositionLayout = "uniform-encoder"
    slot_head: SlotHead = "residual"
    memory_embedding: MemoryEmbedding = "shared"
    max_slots: int = 512
    lora_rank: int = 32
    lora_alpha: float = 32.0
    lora_targets: Literal["qv", "all-linear"] = "qv"
    residual_scale: float = 0.5

    def __post_init__(self) -> None:
        _check(self.span_length >= 1, "model.span_length is out of range.", self.span_length, ">=1")
        _check(self.max_slots >= 1, "model.max_slots is out of range.", self.max_slots, ">= 1")
        _check(self.lora_rank >= 1, "model.lora_rank is out of range.", self.lora_rank, ">= 1")
        _check(self.lora_alpha > 0, "model.lora_alpha is out of range.", self.lora_alpha, "> 0")
        _check(
            self.layout in POSITION_LAYOUTS,
            "model.layout is not known.",
            self.layout,
            ", ".join(POSITION_LAYOUTS),
        )
        _check(
            self.slot_head in SLOT_HEADS,
            "model.slot_head is not known.",
            self.slot_head,
            ", ".join(SLOT_HEADS),
        )
        _check(
            self.memory_embedding in MEMORY_EMBEDDINGS,
            "model.memory_embedding is not known.",
            self.memory_embedding,
            ", ".join(MEMORY_EMBEDDINGS),
        )


@dataclass(frozen=True, kw_only=True)
class RatioStage:
    """One stage of the ratio curriculum.

    Attributes:
        until: Share of the run (0..1] at which the stage ends.
        ratios: Compression ratio -> sampling weight.
    """

    until: float = 1.0
    ratios: Mapping[float, float] = field(default_factory=lambda: {4.0: 1.0})

    def __post_init__(self) -> None:
        _check(0 < self.until <= 1, "A ratio stage ends out of range.", self.until, "0 < until <=1")
        _check(bool(self.ratios), "A ratio stage names no ratio.", self.ratios, "{ratio: weight}")
        for ratio, weight in self.ratios.items():
            check_ratio(float(ratio))
            _check(weight > 0, f"The weight of ratio {ratio} is out of range.", weight, "> 0")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What training samples are drawn from and how they are cut.

    Attributes:
        shards: Folder of packed token shards (`icae data pack`).
        eval_shards: Folder of packed shards for held-out evaluation, or None.
        triplets: Files of instruction triplets (JSON lines, also under xz, gz or zst).
        context_lengths: Context length in tokens -> sampling weight. A context longer
            than the span length becomes a multi-span sample.
        continuation_length: Tokens after the context that the LM objective predicts.
        ratio_curriculum: Stages in order; the last one ends at 1.0.
    """

    shards: str = ""
    eval_shards: str | None = None
    triplets: tuple[str, ...] = ()
    context_lengths: Mapping[int, float] = field(default_factory=lambda: {512: 1.0})
    continuation_length: int = 128
    ratio_curriculum: tuple[RatioStage, ...] = (RatioStage(),)

    def __post_init__(self) -> None:
        _check(bool(self.context_lengths), "data.context_lengths is empty.", {}, "{tokens: weight}")
        for length, weight in self.context_lengths.items():
            _check(int(length) >= 2, "A context length is out of range.", length, ">= 2 tokens")
            _check(weight > 0, f"The weight of length {length} is out of range.", weight, "> 0")
        _check(
            self.continuation_length >= 1,
            "data.continuation_length is out of range.",
            self.continuation_length,
            ">= 1",
        )
        ends = [stage.until for stage in self.ratio_curriculum]
        _check(
            bool(ends) and ends == sorted(ends) and ends[-1] == 1.0,
            "data.ratio_curriculum is not in order.",
            ends,
            "rising `until`, the last one 1.0",
        )


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the objectives.

    Attributes:
        ae_weight: lambda in ``lambda * L_AE + (1 - lambda) * L_LM``; 1.0 is AE alone.
        ft_share: Share of the samples of a step that are instruction triplets (0..1).
            Those carry the FT loss; the others carry the AE + LM loss.
    """

    ae_weight: float = 0.5
    ft_share: float = 0.0

    def __post_init__(self) -> None:
        _check(
            0 <= self.ae_weight <= 1, "objective.ae_weight is out of range.", self.ae_weight, "0..1"
        )
        _check(
            0 <= self.ft_share <= 1, "objective.ft_share is out of range.", self.ft_share, "0..1"
        )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimisation.

    Attributes:
        steps: Optimizer updates in the whole run.
        batch_size: Samples per update, over all processes.
        micro_batch_size: Samples per forward pass; the rest is gradient accumulation.
        learning_rate: Peak AdamW learning rate of the LoRA weights.
        token_learning_rate: The same for memory tokens, objective tokens and slot head.
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
    token_learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 100
    final_lr_share: float = 0.1
    clip_norm: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.steps >= 1, "optim.steps is out of range.", self.steps, ">= 1")
        _check(
            1 <= self.micro_batch_size <= self.batch_size
            and self.batch_size % self.micro_batch_size == 0,
            "optim.micro_batch_size does not divide optim.batch_size.",
            f"{self.micro_batch_size} into {self.batch_size}",
            "a divisor of batch_size",
        )
        _check(
            self.learning_rate > 0, "optim.learning_rate is out of range.", self.learning_rate, ">0"
        )
        _check(
            self.warmup_steps >= 0, "optim.warmup_steps is out of range.", self.warmup_steps, ">=0"
        )
        _check(self.clip_norm > 0, "optim.clip_norm is out of range.", self.clip_norm, "> 0")


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
    """

    output: str = "runs/run"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    log_every: int = 10
    eval_every: int = 0
    eval_samples: int = 64
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run, complete: what `icae pretrain` and `icae finetune` take.

    Attributes:
        name: Short name, used on the model card.
        description: What the run is for, with hardware, hours and the expected figures.
        base: Base model: ``smollm2-135m-instruct``, a Hugging Face hub id or a folder.
        init_adapter: Adapter folder to start from (required to fine-tune), or None.
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


def read_yaml(path: str | Path) -> Any:
    """Parse a YAML file, unchecked.

    Raises:
        ConfigError: If it is missing or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Cannot read the recipe {path}.", got=str(error), fix="Give the path of a YAML file."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML.", got=" ".join(str(error).split())) from error


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: If it is missing, is not YAML or does not fit `Recipe`.
    """
    return from_dict(Recipe, read_yaml(path), where=str(path))


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain dicts and lists, ready for JSON or YAML."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def from_dict(cls: type[T], raw: Any, *, where: str) -> T:
    """Build a config dataclass from parsed YAML or JSON, strictly.

    Args:
        cls: The dataclass to build.
        raw: A mapping of its fields.
        where: Name of the place in messages, for example the recipe's path.

    Raises:
        ConfigError: On an unknown key, a missing key or a wrong type.
    """
    if not isinstance(raw, Mapping):
        got = type(raw).__name__
        raise ConfigError(f"{where}: a mapping is needed.", got=got, expected="key: value lines")
    assert is_dataclass(cls)
    known = {f.name: f for f in fields(cls)}
    hints = typing.get_type_hints(cls)
    unknown = sorted(str(key) for key in raw if key not in known)
    if unknown:
        expected = ", ".join(sorted(known))
        raise ConfigError(f"{where}: unknown key.", got=", ".join(unknown), expected=expected)
    values = {
        key: _convert(hints[key], value, where=f"{where}: {key}") for key, value in raw.items()
    }
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{where}: a key is missing.", got="nothing", expected=name)
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {error.message}", got=error.got, expected=error.expected, fix=error.fix
        ) from error


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    """Check `value` against a type hint; ints pass as floats, lists as tuples."""
    origin = typing.get_origin(hint)
    args = typing.get_args(hint)
    wrong = ConfigError(
        f"{where}: wrong type or value.",
        got=repr(value),
        expected=str(hint).replace("typing.", "")
        if origin
        else getattr(hint, "__name__", str(hint)),
    )
    if origin is types.UnionType:
        for option in args:
            if option is type(None) and value is None:
                return None
            if option is not type(None) and value is not None:
                return _convert(option, value, where=where)
        raise wrong
    if origin is Literal:
        if value not in args:
            raise wrong
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise wrong
        return tuple(_convert(args[0], item, where=f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise wrong
        return {
            _convert(args[0], key if args[0] is str else _number(key), where=where): _convert(
                args[1], item, where=where
            )
            for key, item in value.items()
        }
    if hint is Any:
        return value
    if is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where=where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise wrong from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise wrong
    return value


def _number(key: Any) -> Any:
    """A mapping key that JSON turned into text, as the number it was."""
    try:
        return key if not isinstance(key, str) else float(key) if "." in key else int(key)
    except ValueError:
        return key
