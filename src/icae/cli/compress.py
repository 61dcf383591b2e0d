"""`icae compress` and `icae refine`: a document to a memory file, and better slots in one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, BadParameter, Option

from icae.cli import console
from icae.cli.answers import use_kv
from icae.cli.command import Outcome, command
from icae.cli.memories import ChangedMemory, MemoryPath, load_memories, locked_output
from icae.cli.memory_tables import (
    memory_figures,
    memory_payload,
    print_spans,
    saved,
    span_payload,
)
from icae.cli.options import Count, Force, KeepKv, ModelOptions, Runtime

if TYPE_CHECKING:
    from icae.compression.adaptive import FidelityPolicy
    from icae.compression.refinement import RefineConfig
    from icae.data.documents import Document
    from icae.engine import Engine
    from icae.memory import Memory
    from icae.memory.locked_file import LockedFile

DEFAULT_STEPS = 60
DEFAULT_TARGET = 0.98
SAVE_SECONDS = 20.0
"""Time between two saves of a memory that is being refined."""


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """What a memory must hold and what it may cost.

    Attributes:
        ratio: Context tokens per slot.
        min_fidelity: Share of the tokens that every span must hold (0..1): each span gets the
            highest ratio that reaches it, or stays verbatim.
        budget: Most decoder positions; spent where they hold most.
        ratios: Ratios that --min-fidelity and --budget choose from, such as 16,8,4,2.
        prefer: size: spans that fall short of --min-fidelity are refined before a lower ratio
            is tried; speed: they get the lower ratio at once.
        refine: Optimise the slots of spans that hold less than --min-fidelity (else .98) against
            the decoder, so many steps at most.
        no_verify: Skip measuring the fidelity of each span.
    """

    ratio: Annotated[float | None, Option(metavar="N", show_default="4")] = None
    min_fidelity: Annotated[float | None, Option(metavar="F")] = None
    budget: Annotated[int | None, Option(metavar="N")] = None
    ratios: Annotated[
        str | None, Option(metavar="LIST", show_default="those the adapter was trained at")
    ] = None
    prefer: Literal["size", "speed"] = "size"
    refine: Annotated[
        int | None,
        Option(
            min=1,
            metavar="STEPS",
            show_default=f"{DEFAULT_STEPS} with --min-fidelity and --prefer size, else none",
        ),
    ] = None
    no_verify: bool = False

    def __post_init__(self) -> None:
        from icae.config.spans import check_ratio

        if self.ratio is not None:
            check_ratio(self.ratio)
        self._ladder()
        policy, speed = self.has_policy, self.prefer == "speed"
        if self.no_verify and (policy or self.refine is not None):
            raise _idle("--no-verify", "a fidelity, a budget or refinement needs measuring.")
        if policy and self.ratio is not None:
            why = "--min-fidelity and --budget choose the ratios, from those of --ratios."
            raise _idle("--ratio", why)
        if not policy and self.ratios is not None:
            why = "they are for --min-fidelity and --budget; one ratio is --ratio."
            raise _idle("--ratios", why)
        if speed and (self.min_fidelity is None or self.refine is not None):
            raise _idle("--prefer", "speed is for --min-fidelity without --refine.")

    @property
    def has_policy(self) -> bool:
        """Whether a fidelity or a budget decides the ratio of each span."""
        return self.min_fidelity is not None or self.budget is not None

    def compress(self, icae: Engine, document: Document, **more: Any) -> Memory:
        """A memory of a document; `more` as `icae.Engine.compress` takes it."""
        return icae.compress(
            document.text,
            ratio=self.ratio,
            name=document.name,
            verify=not self.no_verify,
            policy=self.policy(icae),
            **more,
        )

    def refuse_idle(self, *, resume: bool, runtime: str, kv: bool) -> None:
        """Refuse options of `icae compress` that would change nothing."""
        from icae.opening import runtime_name

        if resume and not self.has_policy:
            raise _idle("--resume", "it goes on with --min-fidelity or --budget.")
        if runtime != "auto" and not kv:
            raise _idle("--runtime", "it is what the cache of --kv is for.")
        runtime_name(runtime)

    def _ladder(self) -> tuple[float, ...]:
        """The ratios to choose from; none given are those of the adapter."""
        if self.ratios is None:
            return ()
        from icae.config.spans import check_ratio

        try:
            return tuple(check_ratio(float(part)) for part in self.ratios.split(","))
        except ValueError:
            why = f"{self.ratios!r} is not a list of numbers such as 16,8,4,2."
            raise _idle("--ratios", why) from None

    def policy(self, icae: Engine) -> FidelityPolicy | None:
        """What decides the ratio of each span, or None if every span gets the same."""
        if not self.has_policy:
            return None
        from icae.compression.adaptive import FidelityPolicy
        from icae.compression.refinement import RefineConfig

        automatic = self.prefer == "size" and self.min_fidelity is not None
        steps = self.refine or (DEFAULT_STEPS if automatic else None)
        return FidelityPolicy(
            min_fidelity=self.min_fidelity,
            budget=self.budget,
            ratios=self._ladder() or icae.info.ratios,
            refine=None if steps is None else RefineConfig(steps=steps),
        )

    def refinement(self) -> RefineConfig | None:
        """How the slots of spans of one ratio are refined, or None if they are not."""
        if self.refine is None or self.has_policy:
            return None
        from icae.compression.refinement import RefineConfig

        return RefineConfig(steps=self.refine, target=DEFAULT_TARGET)


def _idle(option: str, why: str) -> BadParameter:
    """The error for an option that would change nothing."""
    return BadParameter(why, param_hint=option)


@command
def compress(
    *,
    file: Annotated[str, Argument(metavar="FILE")],
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="PATH", show_default="FILE with the suffix .icae"),
    ] = None,
    wanted: CompressOptions,
    kv: KeepKv = False,
    runtime: Runtime = "auto",
    model: ModelOptions,
    no_source: bool = False,
    resume: bool = False,
    force: Force = False,
) -> Outcome:
    """Compress a document to a memory file and say how faithful it is.

    With --min-fidelity the file is brought up to date during a long refinement: spans that
    are not settled yet stand in it verbatim. Stopped, --resume goes on from there.

    Args:
        file: Document to compress; - reads standard input.
        output: Memory file to write.
        no_source: Do not keep the text in the memory file.
        resume: Go on from the memory file that a stopped run with --min-fidelity left.
    """
    from icae.data.documents import read_document

    target, inputs = _target(file, output)
    wanted.refuse_idle(resume=resume, runtime=runtime, kv=kv)
    with locked_output(target, force=force or resume, inputs=inputs) as locked:
        document = read_document(file)
        stopped = locked.load() if resume and target.exists() else None
        icae = model.load(None if stopped is None else stopped.provenance)
        start = time.perf_counter()
        saver = _Saver(locked, keep_source=not no_source)
        with console.progress("Compressing spans") as on_progress, saver.said_when_stopped():
            memory = wanted.compress(
                icae,
                document,
                on_progress=on_progress,
                start=stopped,
                on_settled=saver.save_at_times,
            )
        memory = _refined(icae, memory, wanted.refinement(), saver)
    _warn(memory, icae, wanted, text=not no_source)
    warn_of_script(memory, icae, document)
    if kv:
        use_kv(model.reader(runtime, memory.provenance, loaded=icae), memory, target, keep="always")
    payload = _payload(memory, target, icae, time.perf_counter() - start)
    return Outcome(payload=payload, show=lambda: _show(memory, payload))


@command
def refine(
    *,
    memory_path: MemoryPath,
    min_fidelity: Annotated[float, Option(metavar="F")] = DEFAULT_TARGET,
    steps: Count = DEFAULT_STEPS,
    output: ChangedMemory,
    model: ModelOptions,
) -> Outcome:
    """Optimise the slots of spans below a fidelity. Stopped, it goes on where it was.

    Args:
        min_fidelity: Fidelity at which a span is done (0..1).
        steps: Most steps for each span.
    """
    from icae.compression.refinement import RefineConfig

    config = RefineConfig(steps=steps, target=min_fidelity)
    with output.locked(memory_path) as target:
        memory = load_memories(memory_path)
        icae = model.load(memory.provenance)
        start = time.perf_counter()
        better = _refined(icae, memory, config, _Saver(target, keep_source=True))
        changed = sum(
            before.refine_steps != after.refine_steps
            for before, after in zip(memory.spans, better.spans, strict=True)
        )
        return saved(
            better,
            target,
            refined_spans=changed,
            fidelity_before=memory.fidelity,
            seconds=round(time.perf_counter() - start, 3),
        )


class _Saver:
    """Keeps a memory file up to date during long work; it always holds a whole memory."""

    def __init__(self, target: LockedFile, *, keep_source: bool) -> None:
        self.target, self.keep_source = target, keep_source
        self.last, self.saved = time.monotonic(), False

    def save(self, memory: Memory) -> None:
        """Write the file."""
        self.target.save(memory if self.keep_source else memory.without_source())
        self.last, self.saved = time.monotonic(), True

    def save_at_times(self, make: Callable[[], Memory]) -> None:
        """Write the file with what `make` gives if the last time was long ago."""
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
                    f"{self.target.path} holds what was settled, the rest verbatim; "
                    "the same command with --resume goes on from there."
                )
            raise


def _refined(icae: Engine, memory: Memory, config: RefineConfig | None, saver: _Saver) -> Memory:
    """Save a memory, and refine its weak spans; the file is brought up to date on the way."""
    saver.save(memory)
    if config is None:
        return memory
    made = [memory]
    try:
        with console.progress("Refining spans") as on_step:
            for better in icae.refine(memory, config, on_step=on_step):
                made.append(better)
                saver.save_at_times(lambda: made[-1])
    finally:
        saver.save(made[-1])
    return made[-1]


def _warn(memory: Memory, icae: Engine, wanted: CompressOptions, *, text: bool) -> None:
    """Say what --min-fidelity asks for and is not held, and what the adapter never trained on."""
    goal, count = wanted.min_fidelity or 0.0, len(memory.spans)
    below = sum(span.fidelity is not None and span.fidelity < goal for span in memory.spans)
    if below:
        console.warn(
            f"{below} of {count} spans hold less than --min-fidelity {goal:g}: "
            f"--budget {wanted.budget} is too small for more."
        )
    most = icae.info.trained_spans
    slots = sum(span.kind != "tokens" for span in memory.spans)
    if most is not None and slots > most:
        kept = "icae ask --full-context reads the text, " if text else ""
        console.warn(
            f"{slots} spans of slots, and the adapter was trained on {most} at most: questions to "
            f"all of them at once may get empty answers. {kept}icae store add keeps it in a store, "
            "of which the best passages are asked."
        )


def warn_of_script(memory: Memory, icae: Engine, document: Document) -> None:
    """Say if most letters of a text are not Latin and the adapter was trained on English."""
    letters = [letter for letter in document.text if letter.isalpha()]
    foreign = sum(letter > "\u024f" for letter in letters)  # where Latin Extended-B ends
    if icae.info.data.get("language") == "en" and 2 * foreign > len(letters):
        console.warn(
            f"{document.name} is not in Latin letters, and this adapter was trained on English; "
            f"measured fidelity {console.percent_text(memory.fidelity)}."
        )


def _target(file: str, output: Path | None) -> tuple[Path, list[Path]]:
    """The memory file to write, and the files that are read."""
    from icae.data.documents import require_no_url

    inputs = [] if file == "-" else [Path(file)]
    if output is not None:
        return output, inputs
    if file == "-":
        raise BadParameter("standard input has no name to derive one from.", param_hint="--output")
    require_no_url(file)
    if not Path(file).name:
        raise BadParameter(f"{file!r} is not the path of a file.", param_hint="FILE")
    return Path(file).with_suffix(".icae"), inputs


def _payload(memory: Memory, target: Path, icae: Engine, seconds: float) -> dict[str, Any]:
    full, held = icae.kv_bytes(memory.tokens), icae.kv_bytes(memory.positions)
    return {
        "output": str(target),
        **memory_payload(memory),
        "spans": [span_payload(index, span) for index, span in enumerate(memory.spans)],
        "kv_bytes": {"full": full, "memory": held, "saved": full - held},
        "file_bytes": target.stat().st_size,
        "seconds": round(seconds, 3),
        "adapter": icae.name,
    }


def _show(memory: Memory, payload: dict[str, Any]) -> None:
    """Print the summary, then the fidelity of the spans."""
    kv = {name: console.size_text(count) for name, count in payload["kv_bytes"].items()}
    figures = memory_figures(memory)
    console.print_figures(
        {
            "memory": payload["output"],
            "tokens": figures["tokens"],
            "positions": figures["positions"],
            "KV cache": f"{kv['full']} -> {kv['memory']} ({kv['saved']} saved)",
            "file": console.size_text(payload["file_bytes"]),
            "fidelity": figures["fidelity"] + (" (mean)" if memory.fidelity is not None else ""),
            **{name: figures[name] for name in ("recall", "exact") if name in figures},
            "adapter": payload["adapter"],
            "time": f"{payload['seconds']:.1f} s",
        }
    )
    print_spans(memory.spans, memory.span_source, memory.fidelity)
