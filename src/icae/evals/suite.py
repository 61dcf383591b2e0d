"""The whole suite: every experiment of the registry, then one report of all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import icae
from icae.config.checkout import commit
from icae.engine import Engine
from icae.errors import IcaeError, InputError, ResultConflictError
from icae.evals.compare import read_result
from icae.evals.experiment import Experiment
from icae.evals.judge import JudgeService, OpenAiJudge
from icae.evals.judging import Judging, judge_answers, read_answers, read_contexts
from icae.evals.measuring import Progress, evaluate
from icae.evals.metadata import data_hashes, hardware, model_record
from icae.evals.registry import EXPERIMENTS
from icae.evals.report import Part, write_report
from icae.evals.results import SCHEMA, Finished

Scale = Literal["quick", "full"]

JUDGED = {"judge": "full context", "judge-summary": "own summary"}
"""Name of a part -> whose answers the memory's are judged against."""

PartProgress = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of an experiment; gives what is called as its work goes on."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What the suite measures, on what.

    Attributes:
        texts: Held-out corpus files or folders; may be none.
        questions: Triplet files; may be none.
        scale: ``quick`` or ``full``.
        judge: The judge of answers, or None to skip what needs one.
        api_key: Its key.
        only: Names of the experiments to run, or None for all.
        experiments: What there is to run.
    """

    texts: tuple[Path, ...]
    questions: tuple[Path, ...]
    scale: Scale
    judge: JudgeService | None = None
    api_key: str = field(default="", repr=False)
    only: tuple[str, ...] | None = None
    experiments: tuple[type[Experiment[Any]], ...] = EXPERIMENTS

    def __post_init__(self) -> None:
        known = [*(experiment.name for experiment in self.experiments), *JUDGED]
        unknown = [name for name in self.only or () if name not in known]
        if unknown:
            raise InputError(
                "There is no such experiment.",
                got=", ".join(map(repr, unknown)),
                expected=", ".join(known),
            )

    def wants(self, name: str) -> bool:
        """Whether a part is asked for."""
        return self.only is None or name in self.only


@dataclass(frozen=True, kw_only=True)
class SuiteFinished:
    """A complete report.

    Attributes:
        payload: The JSON object of the report.
        parts: Every experiment, with its result or why there is none.
        files: The files of the report: HTML, Markdown, JSON.
    """

    payload: dict[str, Any]
    parts: tuple[Part, ...]
    files: tuple[Path, ...]


def run_suite(
    engine: Engine,
    suite: Suite,
    *,
    folder: Path,
    command: str,
    replace: bool = False,
    on_part: PartProgress = lambda name: nullcontext(lambda done, total: None),
) -> SuiteFinished:
    """Run every experiment and write ``report.html``, ``.md`` and ``.json``.

    Each experiment has its own files in the folder and is resumed from them. One that lacks
    data or a package is skipped, with the reason in the report.

    Raises:
        ResultConflictError: If the folder holds results of another run.
        InputError: If a file cannot be written.
    """
    made = []
    for kind in suite.experiments:
        if suite.wants(kind.name):
            measure = functools.partial(
                _measure, engine, suite, kind, folder, command, replace=replace, on_part=on_part
            )
            made.append(_part(kind.name, kind.question, measure))
    for name, against in JUDGED.items():
        if suite.wants(name):
            question = f"Is the memory's answer better than that of the {against}, to a judge?"
            judge = functools.partial(_judge, suite, name, folder, command)
            made.append(_part(name, question, judge))
    payload, files = write_report(_head(engine, suite, command), made, folder)
    return SuiteFinished(payload=payload, parts=tuple(made), files=files)


def _measure(
    engine: Engine,
    suite: Suite,
    kind: type[Experiment[Any]],
    folder: Path,
    command: str,
    *,
    replace: bool,
    on_part: PartProgress,
) -> Finished:
    inputs = suite.texts if kind.reads == "texts" else suite.questions
    if not inputs:
        raise InputError(f"No {kind.reads} were given.")
    scaled = kind.quick if suite.scale == "quick" else kind.full
    with on_part(kind.name) as on_progress:
        return evaluate(
            engine,
            inputs,
            scaled(engine.config.span_length),
            folder=folder,
            command=command,
            replace=replace,
            on_progress=on_progress,
        )


def _part(name: str, question: str, measure: Callable[[], Finished]) -> Part:
    """A part of the report, or why it was skipped."""
    try:
        return Part(name=name, question=question, finished=measure())
    except ResultConflictError:
        raise
    except IcaeError as error:
        said = [error.message.rstrip(".")]
        said += [f"got {error.got}"] if error.got else []
        said += [error.fix.rstrip(".")] if error.fix else []
        return Part(name=name, question=question, finished=None, reason="; ".join(said))


def _judge(suite: Suite, name: str, folder: Path, command: str) -> Finished:
    """Judge the answers that `qa` left in the folder, at its lowest ratio."""
    if suite.judge is None:
        raise InputError("No judge was given.", fix="Give --judge-url and --judge-model.")
    path = folder / "qa.json"
    if not path.exists():
        raise InputError("There are no answers to judge.", fix="Run qa, which needs --questions.")
    ratio = min(row["ratio"] for row in read_result(path)["rows"] if row["ratio"] is not None)
    judging = Judging(
        first=read_answers(path, reads="memory", ratio=ratio),
        second=read_answers(path, reads=JUDGED[name], ratio=ratio),
        contexts=read_contexts(suite.questions),
        service=suite.judge,
        cache=folder / "judge-replies.jsonl",
        name=name,
    )
    judge = OpenAiJudge(suite.judge, suite.api_key)
    return judge_answers(judging, judge, folder=folder, command=command)


def _head(engine: Engine, suite: Suite, command: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "title": f"Evaluation of {engine.provenance.adapter}",
        "scale": suite.scale,
        "icae": icae.__version__,
        "commit": commit(),
        **model_record(engine),
        "data": _hashes([*suite.texts, *suite.questions]),
        "seed": 0,
        "hardware": hardware(engine.runtime.model.device),
        "command": command,
    }


def _hashes(inputs: Sequence[Path]) -> list[dict[str, str | None]]:
    """Names and hashes of the inputs; of one that cannot be read, its name alone."""
    found: list[dict[str, str | None]] = []
    for path in inputs:
        try:
            found += data_hashes([path])
        except IcaeError:
            found.append({"file": str(path), "sha256": None})
    return found
