"""Checkpoints: everything a run needs to go on as if it had never stopped.

Sampling and the learning rate are pure functions of the step, so the trained weights,
the optimizer state and the step are the whole state.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icae.config import Recipe
from icae.config.parsing import from_dict, to_dict
from icae.errors import ConfigError, TrainingError
from icae.model.adapted_decoder import AdaptedDecoder

log = logging.getLogger(__name__)


def _recorded(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that a checkpoint records."""
    plain = to_dict(recipe)
    for free in ("run", "description", "name"):
        plain.pop(free)
    return plain


def _changed(stored: dict[str, Any], recipe: Recipe) -> list[str]:
    """Parts of a stored recipe that differ; settings added since count at their defaults.

    A run may be made longer or shorter: what depends on its length (learning rate,
    curriculum) follows the new one from the step at which it resumes.
    """
    with contextlib.suppress(ConfigError):  # one that is not valid today is compared as it stands
        stored = _recorded(from_dict(Recipe, {"name": recipe.name, **stored}, where="checkpoint"))
    wanted = _recorded(recipe)
    wanted["optim"]["steps"] = stored["optim"]["steps"]
    return sorted(key for key in wanted if stored.get(key) != wanted[key])


def save_checkpoint(
    folder: Path,
    model: AdaptedDecoder,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    recipe: Recipe,
    seconds: float,
) -> Path:
    """Write ``step-XXXXXXXX.pt`` atomically and drop the oldest beyond `keep_checkpoints`."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step:08d}.pt"
    scratch = target.with_suffix(".tmp")
    state = {
        "step": step,
        "seconds": seconds,
        "recipe": _recorded(recipe),
        "weights": {name: p.detach().cpu() for name, p in model.trainable().items()},
        "head": _head(model),
        "optimizer": optimizer.state_dict(),
    }
    with scratch.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(target)
    for old in sorted(folder.glob("step-*.pt"))[: -recipe.run.keep_checkpoints]:
        old.unlink()
    return target


def _head(model: AdaptedDecoder) -> dict[str, Tensor]:
    """The slot head's own tensors, which hold the calibration, by name."""
    own = model.own_state().items()
    return {k.removeprefix("head."): tensor for k, tensor in own if k.startswith("head.")}


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step, or None."""
    found = sorted(folder.glob("step-*.pt"))
    return found[-1] if found else None


def load_checkpoint(
    path: Path, model: AdaptedDecoder, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> tuple[int, float]:
    """Restore a checkpoint.

    Returns:
        (steps done, training seconds so far).

    Raises:
        TrainingError: If it is damaged or belongs to another recipe.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"The checkpoint {path} is damaged.",
            got=str(error),
            fix="Delete it to use an older one.",
        ) from error
    changed, steps = _changed(state["recipe"], recipe), state["recipe"]["optim"]["steps"]
    if changed:
        raise TrainingError(
            f"The checkpoint {path} belongs to another recipe.",
            got=f"a different {', '.join(changed)}",
            expected="the recipe it was started with (only `run` and optim.steps may change)",
            fix="Choose another run.output, or start from the adapter with init_adapter.",
        )
    if int(state["step"]) > recipe.optim.steps:
        raise TrainingError(
            f"The checkpoint {path} is of a later step than the recipe ends with.",
            got=f"step {state['step']}, optim.steps {recipe.optim.steps}",
            expected=f"optim.steps of {state['step']} or more",
            fix="Choose another run.output, or more steps.",
        )
    if steps != recipe.optim.steps:
        log.warning("the run was begun with %d steps, it goes on to %d", steps, recipe.optim.steps)
    own = model.trainable()
    if set(own) != set(state["weights"]):
        raise TrainingError(f"The checkpoint {path} does not fit the model.")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state["weights"][name])
        for name, statistic in _head(model).items():  # not all of it is trained
            statistic.copy_(state["head"][name])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["seconds"])
