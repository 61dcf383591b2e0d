"""The whole suite: every experiment, then one report of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import icae
from icae.config.checkout import commit
from icae.data.triplets.service import ChatService
from icae.engine import Engine
from icae.errors import IcaeError, InputError, ResultConflictError
from icae.evals import EXPERIMENTS, Experiment
from icae.evals.compare import read_result
from icae.evals.judge import judge_answers, read_answers
from icae.evals.metadata import SCHEMA, data_hashes, hardware, model_record
from icae.evals.report import Part, write_report
from icae.evals.results import Finished, Progress, ResultFiles, evaluate

JUDGED = {"judge": "full context", "judge-summary": "own summary"}
"""Name of a part -> whose answers the memory's are judged against."""

PartProgress = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of an experiment; gives what is called as its work goes on."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What the suite measures, on what, and where to.

    Attributes:
        texts: Held-out corpus files or folders; may be none.
        questions: Triplet files; may be none.
        scale: ``quick`` or ``full``.
        folder: Folder of the report.
        command: The command line, for the record.
        judge: The judge of answers, or None to skip what needs one.
        only: Names of the experiments to run, or None for all.
        experiments: What there is to run.
        replace: Replace results of another run.
        on_part: Called with the name of every experiment that begins.
    """

    texts: tuple[Path, ...]
    questions: tuple[Path, ...]
    scale: Literal["quick", "full"]
    folder: Path
    command: str
    judge: ChatService | None = None
    only: tuple[str, ...] | None = None
    experiments: tuple[type[Experiment], ...] = EXPERIMENTS
    replace: bool = False
    on_part: PartProgress = lambda name: nullcontext(lambda done, total: None)

    def __post_init__(self) -> None:
        known = [*(experiment.name for experiment in self.experiments), *JUDGED]
        unknown = [name for name in self.only or () if name not in known]
        if unknown:
            raise InputError(
                "There is no such experiment.",
                got=", ".join(map(repr, unknown)),
                expected=", ".join(known),
            )

    def run(self, engine: Engine) -> Finished:
        """Run every experiment and write ``report.html``, ``.md`` and ``.json``.

        Each experiment has its own files in the folder and is resumed from them. One that lacks
        data or a package is skipped, with the reason in the report.

        Raises:
            ResultConflictError: If the folder holds results of another run.
            InputError: If a file cannot be written.
        """
        made = [
            _part(kind.name, kind.question, partial(self._measure, engine, kind))
            for kind in self.experiments
            if self.only is None or kind.name in self.only
        ]
        for name, against in JUDGED.items():
            if self.only is None or name in self.only:
                question = f"Is the memory's answer better than that of the {against}, to a judge?"
                made.append(_part(name, question, partial(self._judge, name)))
        payload, files = write_report(self._head(engine), made, self.folder)
        return Finished(payload=payload, tables=(), files=files)

    def _measure(self, engine: Engine, kind: type[Experiment]) -> Finished:
        inputs = self.texts if kind.reads == "texts" else self.questions
        if not inputs:
            raise InputError(f"No {kind.reads} were given.")
        settings = kind.quick if self.scale == "quick" else kind.full
        with self.on_part(kind.name) as on_progress:
            return evaluate(
                engine,
                inputs,
                kind.sized(engine.config.span_length, **settings),
                folder=self.folder,
                command=self.command,
                replace=self.replace,
                on_progress=on_progress,
            )

    def _judge(self, name: str) -> Finished:
        """Judge the answers that `qa` left in the folder, at its lowest ratio."""
        if self.judge is None:
            raise InputError("No judge was given.", fix="Give --judge-url and --judge-model.")
        path = self.folder / "qa.json"
        if not path.exists():
            raise InputError(
                "There are no answers to judge.", fix="Run qa, which needs --questions."
            )
        ratio = min(row["ratio"] for row in read_result(path)["rows"] if row["ratio"] is not None)
        return judge_answers(
            read_answers(path, reads="memory", ratio=ratio),
            read_answers(path, reads=JUDGED[name], ratio=ratio),
            self.judge,
            files=ResultFiles(folder=self.folder, name=name),
            command=self.command,
        )

    def _head(self, engine: Engine) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "title": f"Evaluation of {engine.provenance.adapter}",
            "scale": self.scale,
            "icae": icae.__version__,
            "commit": commit(),
            **model_record(engine),
            "data": _hashes([*self.texts, *self.questions]),
            "seed": 0,
            "hardware": hardware(engine.runtime.model.device),
            "command": self.command,
        }


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


def _hashes(inputs: Sequence[Path]) -> list[dict[str, str | None]]:
    """Names and hashes of the inputs; of one that cannot be read, its name alone."""
    found: list[dict[str, str | None]] = []
    for path in inputs:
        try:
            found += data_hashes([path])
        except IcaeError:
            found.append({"file": str(path), "sha256": None})
    return found
