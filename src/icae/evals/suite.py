"""The whole suite: every experiment of the registry, then one report of all."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import icae
from icae.config.checkout import commit
from icae.engine import Icae
from icae.errors import IcaeError, InputError, ResultConflictError
from icae.evals.answer_sets import read_answers, read_contexts
from icae.evals.compare import read_result
from icae.evals.judge_client import JudgeService, OpenAiJudge
from icae.evals.judge_run import JudgeRun, judge_answers
from icae.evals.metadata import data_hashes, hardware, model_record
from icae.evals.registry import ENTRIES, Entry, Scale
from icae.evals.report import SCHEMA, ReportFile
from icae.evals.run import Finished, Progress, evaluate
from icae.evals.suite_report import Part, html_report, json_report, markdown_report

JUDGED = {"judge": "full context", "judge-summary": "own summary"}
"""Name of a part -> whose answers the memory's are judged against."""

PartProgress = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of an experiment; gives what is called as its work goes on."""


@dataclass(frozen=True, kw_only=True)
class SuiteRun:
    """What the suite measures, on what.

    Attributes:
        texts: Held-out corpus files or folders; may be none.
        questions: Triplet files; may be none.
        scale: ``quick`` or ``full``.
        judge: The judge of answers, or None to skip what needs one.
        api_key: Its key.
        only: Names of the experiments to run, or None for all.
        entries: What there is to run.
    """

    texts: tuple[Path, ...]
    questions: tuple[Path, ...]
    scale: Scale
    judge: JudgeService | None = None
    api_key: str = field(default="", repr=False)
    only: tuple[str, ...] | None = None
    entries: tuple[Entry, ...] = ENTRIES

    def __post_init__(self) -> None:
        known = [*(entry.name for entry in self.entries), *JUDGED]
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
    engine: Icae,
    run: SuiteRun,
    *,
    folder: Path,
    command: str,
    replace: bool = False,
    on_part: PartProgress = lambda name: nullcontext(lambda done, total: None),
) -> SuiteFinished:
    """Run every experiment and write ``report.html``, ``.md`` and ``.json``.

    Each experiment has its own files in the folder and is resumed from them. One that lacks
    data or a package is skipped, with the reason in the report.

    Args:
        engine: Adapter and base model.
        run: What is measured.
        folder: Where the files go.
        command: The command line, for the record.
        replace: Replace results of other settings in that folder.
        on_part: Called when an experiment begins.

    Raises:
        ResultConflictError: If the folder holds results of another run.
        InputError: If a file cannot be written.
    """
    measure = functools.partial(
        _run_entry,
        engine,
        run,
        folder=folder,
        command=command,
        replace=replace,
        on_part=on_part,
    )
    parts = [
        _part(entry.name, entry.question, functools.partial(measure, entry))
        for entry in run.entries
        if run.wants(entry.name)
    ]
    parts += [
        _part(
            name,
            f"Is the memory's answer better than that of the {against}, to a judge?",
            functools.partial(_run_judge, run, name, folder=folder, command=command),
        )
        for name, against in JUDGED.items()
        if run.wants(name)
    ]
    return _write(_head(engine, run, command), parts, folder)


def _write(head: dict[str, Any], parts: Sequence[Part], folder: Path) -> SuiteFinished:
    """Write the files of the report."""
    file = ReportFile(folder=folder, name="report", suffixes=(".html", ".md", ".json"))
    payload = json_report(head, parts)
    file.write(".html", html_report(head, parts).encode("utf-8", "replace"))
    file.write(".md", markdown_report(head, parts, folder).encode("utf-8", "replace"))
    text = json.dumps(payload, indent=1, allow_nan=False) + "\n"
    file.write(".json", text.encode())
    return SuiteFinished(
        payload=payload,
        parts=tuple(parts),
        files=tuple(file.beside(suffix) for suffix in file.suffixes),
    )


def _part(name: str, question: str, measure: Callable[[], Finished]) -> Part:
    """A part of the report, or why it was skipped."""
    try:
        return Part(name=name, question=question, finished=measure())
    except ResultConflictError:
        raise
    except IcaeError as error:
        return Part(name=name, question=question, finished=None, reason=_reason(error))


def _run_judge(run: SuiteRun, name: str, *, folder: Path, command: str) -> Finished:
    """Judge the answers that `qa` left in the folder, at its lowest ratio."""
    if run.judge is None:
        raise InputError("No judge was given.", fix="Give --judge-url and --judge-model.")
    path = folder / "qa.json"
    if not path.exists():
        raise InputError("There are no answers to judge.", fix="Run qa, which needs --questions.")
    ratio = min(row["ratio"] for row in read_result(path)["rows"] if row["ratio"] is not None)
    judged = JudgeRun(
        first=read_answers(path, reads="memory", ratio=ratio),
        second=read_answers(path, reads=JUDGED[name], ratio=ratio),
        contexts=read_contexts(run.questions),
        service=run.judge,
        cache=folder / "judge-replies.jsonl",
        name=name,
    )
    judge = OpenAiJudge(run.judge, run.api_key)
    return judge_answers(judged, judge, folder=folder, command=command)


def _run_entry(
    engine: Icae,
    run: SuiteRun,
    entry: Entry,
    *,
    folder: Path,
    command: str,
    replace: bool,
    on_part: PartProgress,
) -> Finished:
    inputs: Sequence[Path] = {"texts": run.texts, "questions": run.questions}[entry.reads]
    if not inputs:
        raise InputError(f"No {entry.reads} were given.")
    with on_part(entry.name) as on_progress:
        return evaluate(
            engine,
            inputs,
            entry.settings(run.scale, engine.config.span_length),
            folder=folder,
            command=command,
            replace=replace,
            on_progress=on_progress,
        )


def _reason(error: IcaeError) -> str:
    """An error as one line of the table."""
    known = [error.message.rstrip(".")]
    known += [f"got {error.got}"] if error.got else []
    known += [error.fix.rstrip(".")] if error.fix else []
    return "; ".join(known)


def _head(engine: Icae, run: SuiteRun, command: str) -> dict[str, Any]:
    inputs = [*run.texts, *run.questions]
    return {
        "schema": SCHEMA,
        "title": f"Evaluation of {engine.provenance.adapter}",
        "scale": run.scale,
        "icae": icae.__version__,
        "commit": commit(),
        **model_record(engine),
        "data": _hashes(inputs),
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
