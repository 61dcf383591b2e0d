"""What `icae compress` and `icae refine` share: options, policies, saving on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from icae.cli import console
from icae.cli.progress import eta_progress
from icae.config.spans import check_ratio

if TYPE_CHECKING:
    from icae.compression.adaptive import FidelityPolicy
    from icae.compression.refinement import RefineConfig
    from icae.engine import Icae
    from icae.memory import Memory

DEFAULT_STEPS = 60
DEFAULT_TARGET = 0.98
SAVE_SECONDS = 20.0
"""Time between two saves of a memory that is being refined."""

Preference = Literal["size", "speed"]

Prefer = Annotated[
    Preference,
    typer.Option(
        "--prefer",
        help="size: spans that fall short of --min-fidelity are refined before a lower ratio is "
        "tried; speed: they get the lower ratio at once.",
    ),
]

RefineSteps = Annotated[
    int | None,
    typer.Option(
        "--refine",
        min=1,
        metavar="STEPS",
        help="Optimise the slots of weak spans against the decoder, so many steps at most.",
        show_default=f"{DEFAULT_STEPS} with --min-fidelity and --prefer size, else none",
    ),
]


MinFidelity = Annotated[
    float | None,
    typer.Option(
        "--min-fidelity",
        metavar="F",
        help="Share of the tokens that every span must hold (0..1): each span gets the highest "
        "ratio that reaches it, or stays verbatim.",
    ),
]

Budget = Annotated[
    int | None,
    typer.Option(
        "--budget", metavar="N", help="Most decoder positions; spent where they hold most."
    ),
]

PolicyRatios = Annotated[
    str | None,
    typer.Option(
        "--ratios",
        metavar="LIST",
        help="Ratios that --min-fidelity and --budget choose from, such as 16,8,4,2.",
        show_default="those the adapter was trained at",
    ),
]


def check_measuring(no_verify: bool, *goals: float | None) -> None:
    """Refuse ``--no-verify`` beside a goal that needs measuring.

    Raises:
        typer.BadParameter: If there is one.
    """
    if no_verify and any(goal is not None for goal in goals):
        raise typer.BadParameter(
            "a fidelity, a budget or refinement needs measuring.", param_hint="--no-verify"
        )


def parse_ratios(text: str | None) -> tuple[float, ...]:
    """Compression ratios separated by commas; nothing for None.

    Raises:
        typer.BadParameter: If one is not a number.
        ConfigError: If one is out of range.
    """
    if text is None:
        return ()
    try:
        return tuple(check_ratio(float(part)) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers such as 16,8,4,2.", param_hint="--ratios"
        ) from None


def make_policy(
    *,
    min_fidelity: float | None,
    budget: int | None,
    ratios: Sequence[float],
    prefer: Preference,
    steps: int | None,
) -> FidelityPolicy | None:
    """The policy that the options ask for, or None if every span gets one ratio.

    Args:
        min_fidelity: Fidelity that every span must reach, or None.
        budget: Most decoder positions, or None.
        ratios: Ratios to choose from.
        prefer: Whether weak spans are refined first.
        steps: Most refinement steps, or None for the default.

    Raises:
        ConfigError: If a value is out of range.
    """
    if min_fidelity is None and budget is None:
        return None
    from icae.compression.adaptive import FidelityPolicy
    from icae.compression.refinement import RefineConfig

    automatic = prefer == "size" and min_fidelity is not None
    refine = None
    if steps is not None or automatic:
        refine = RefineConfig(steps=DEFAULT_STEPS if steps is None else steps)
    return FidelityPolicy(
        min_fidelity=min_fidelity, budget=budget, ratios=tuple(ratios), refine=refine
    )


def policy_settings(
    policy: FidelityPolicy | None, refine: RefineConfig | None
) -> dict[str, str | int | float | bool]:
    """What a policy or refinement asks of the compressor, flat, as a store records it.

    Args:
        policy: The policy, or None if every span gets one ratio.
        refine: How slots are refined without a policy, or None.
    """
    found: dict[str, str | int | float | bool] = {}
    if policy is not None:
        refine = policy.refine
        found["ratios"] = ",".join(f"{ratio:g}" for ratio in policy.ladder)
        if policy.min_fidelity is not None:
            found["min_fidelity"] = policy.min_fidelity
        if policy.budget is not None:
            found["budget"] = policy.budget
    if refine is not None:
        found |= {f"refine.{name}": value for name, value in asdict(refine).items()}
    return found


class Saver:
    """Keeps a memory file up to date during long work, every so many seconds.

    Args:
        target: File to write; it always holds a whole memory, also after an interrupt.
        keep_source: Whether the file keeps the text.
    """

    def __init__(self, target: Path, *, keep_source: bool) -> None:
        self.target, self.keep_source = target, keep_source
        self.last, self.saved = time.monotonic(), False

    def save(self, memory: Memory) -> None:
        """Write the file."""
        (memory if self.keep_source else memory.without_source()).save(self.target)
        self.last, self.saved = time.monotonic(), True

    def save_at_times(self, make: Callable[[], Memory]) -> None:
        """Write the file if the last time was long ago.

        Args:
            make: Makes the memory as it is now.
        """
        if time.monotonic() - self.last > SAVE_SECONDS:
            self.save(make())

    @contextmanager
    def said_when_stopped(self) -> Iterator[None]:
        """Say after Ctrl-C that the file can be gone on from, if it was written."""
        try:
            yield
        except KeyboardInterrupt:
            if self.saved:
                console.note(
                    f"{self.target} holds what was settled, the rest verbatim; "
                    "the same command with --resume goes on from there."
                )
            raise


def refine_in_place(
    icae: Icae,
    memory: Memory,
    target: Path,
    *,
    steps: int,
    fidelity: float = DEFAULT_TARGET,
    keep_source: bool = True,
) -> Memory:
    """Refine the weak spans of a memory; the file is brought up to date on the way.

    Args:
        icae: The engine that made the memory.
        memory: The memory, with its text.
        target: File to write; it always holds a whole memory, also after an interrupt.
        steps: Most steps for each span.
        fidelity: Fidelity at which a span is done.
        keep_source: Whether the file keeps the text.

    Raises:
        InputError: If the text of a weak span was not kept.
    """
    from icae.compression.refinement import RefineConfig

    made, saver = [memory], Saver(target, keep_source=keep_source)
    try:
        with eta_progress("Refining spans") as on_step:
            config = RefineConfig(steps=steps, target=fidelity)
            for better in icae.refine(memory, config, on_step=on_step):
                made[0] = better
                saver.save_at_times(lambda: made[0])
    finally:
        saver.save(made[0])
    return made[0]
