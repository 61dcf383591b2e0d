"""What a recipe must hold for the stage that it is started as."""

from __future__ import annotations

from typing import Literal

from icae.config import UNTRAINED, Recipe
from icae.config.spans import slot_count
from icae.errors import TrainingError

Stage = Literal["pretrain", "finetune"]


def check_stage(recipe: Recipe, stage: Stage) -> None:
    """Refuse a recipe that lacks what its stage needs.

    Raises:
        TrainingError: If samples, shards or a start are missing, or contradict each other.
    """
    if stage == "pretrain" and recipe.objective.ft_share > 0:
        raise TrainingError(
            "This recipe has instruction samples.",
            got=f"objective.ft_share {recipe.objective.ft_share}",
            fix="Use `icae finetune`.",
        )
    if stage == "finetune" and not (recipe.objective.ft_share > 0 and recipe.data.triplets):
        raise TrainingError(
            "This recipe has no instruction samples.",
            expected="objective.ft_share > 0 and data.triplets",
            fix="Use `icae pretrain`, or add them.",
        )
    if of_full_context(recipe):
        _check_full_context(recipe)
    if recipe.objective.reader == "gist" or recipe.model.memory == "key-values":
        _check_key_values(recipe)
    if recipe.objective.ft_share < 1 and not recipe.data.shards:
        raise TrainingError(
            "The recipe names no token shards.",
            expected="data.shards: a folder made by `icae data pack`",
            fix="Set it in the recipe or with --set data.shards=DIR.",
        )
    if not of_full_context(recipe) and stage == "finetune" and recipe.init_adapter is None:
        raise TrainingError(
            "Fine-tuning starts from a pretrained adapter.",
            expected="init_adapter: an adapter folder",
            fix=f"Set it in the recipe or with --set init_adapter=DIR; {UNTRAINED} starts from "
            "fresh weights.",
        )


def require_window(recipe: Recipe, window: int) -> None:
    """Refuse contexts that the decoder cannot write back or go on from within its window.

    Args:
        recipe: The recipe.
        window: Positions of the base model.

    Raises:
        TrainingError: With the positions that the longest context takes.
    """
    if recipe.objective.ft_share == 1:
        return
    data, model = recipe.data, recipe.model
    longest = max(int(length) for length in data.context_lengths)
    lowest = min(float(ratio) for stage in data.ratio_curriculum for ratio in stage.ratios)
    slots = slot_count(longest, lowest)
    back = longest + (0 if model.memory == "key-values" else slots)
    onward = slots + data.continuation_length if recipe.objective.has_lm else 0
    taken = model.objective_rows + max(back, onward)
    if taken > window:
        raise TrainingError(
            "The contexts do not fit the window of the base model.",
            got=f"{longest} context tokens at {lowest:g}x: {taken} positions of the decoder",
            expected=f"at most {window}",
            fix="Take shorter data.context_lengths, or a base model with a longer window.",
        )


def of_full_context(recipe: Recipe) -> bool:
    """Whether the recipe trains a reader of the full context, which has no memory."""
    return recipe.objective.reader == "full-context"


def _check_full_context(recipe: Recipe) -> None:
    """A reader of the full context has no memory to write back, to continue or to start from."""
    objective = recipe.objective
    if objective.ft_share < 1:
        raise TrainingError(
            "A reader of the full context is trained on instructions alone.",
            got=f"objective.ft_share {objective.ft_share}",
            expected="1.0",
            fix="--set objective.ft_share=1.0 (and a batch size with as many triplets).",
        )
    if recipe.init_adapter is not None:
        raise TrainingError(
            "A reader of the full context starts from the base model.",
            got=f"init_adapter {recipe.init_adapter}",
            expected="init_adapter: null",
        )


def _check_key_values(recipe: Recipe) -> None:
    """Its layers run with growing caches: they are not recomputed, compiled or shared out."""
    run = recipe.run
    if run.gradient_checkpointing or run.compile != "none" or run.sharing != "replicas":
        raise TrainingError(
            "A memory of keys and values is trained as it is: its layers run with growing caches.",
            got=f"gradient_checkpointing {run.gradient_checkpointing}, compile {run.compile}, "
            f"sharing {run.sharing}",
            expected="false, none and replicas",
            fix="--set run.gradient_checkpointing=false --set run.compile=none "
            "--set run.sharing=replicas (and a smaller optim.micro_batch_size).",
        )
