"""Judging two sets of answers: files in, verdicts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icae
from icae.config.checkout import commit
from icae.evals.answer_sets import Answered, AnswerSet, paired
from icae.evals.experiment import Row
from icae.evals.judge import (
    COLUMNS,
    NOTES,
    OUTCOMES,
    Judged,
    both_orders,
    figures,
    read_verdicts,
)
from icae.evals.judge_client import CachedJudge, Judge, JudgeService, ask_all
from icae.evals.judge_prompt import VERSION, Asked, messages
from icae.evals.metrics import LEVEL, RESAMPLES
from icae.evals.pages import data_image, html_table
from icae.evals.panels import StackPanel
from icae.evals.plots import plot, require_matplotlib
from icae.evals.report import SCHEMA, Report, ReportFile
from icae.evals.run import Finished
from icae.evals.tables import Table, markdown_tables, table_texts
from icae.memory.html_page import escaped

TITLE = "Answers judged in both orders"
PANELS = (
    StackPanel(
        keys={name.replace(" ", "_"): name for name in OUTCOMES},
        title="share of the judged questions",
    ),
)
TOGETHER = 32
"""Requests between two reports of progress, at least."""
EXAMPLES = 6


@dataclass(frozen=True, kw_only=True)
class JudgeRun:
    """What is judged and by whom.

    Attributes:
        first: The answers that win or lose.
        second: The answers they are set against.
        contexts: (question, reference) -> the text that the judge is shown, if known.
        service: The judge.
        cache: File of its replies.
        seed: Seed of the bootstrap.
        together: Requests in flight.
        name: Name of the result files.
    """

    first: AnswerSet
    second: AnswerSet
    contexts: dict[tuple[str, str], str]
    service: JudgeService
    cache: Path
    seed: int = 0
    together: int = 4
    name: str = "judge"


def judge_answers(
    run: JudgeRun,
    judge: Judge,
    *,
    folder: Path,
    command: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Finished:
    """Judge every question both answer, and write a JSON file, Markdown and a plot.

    Replies are cached as they come, so an equal run asks only for what is missing.

    Args:
        run: What is judged.
        judge: Who judges.
        folder: Where the files go.
        command: The command line, for the record.
        on_progress: Called with (requests done, requests in all).

    Raises:
        InputError: If no question is in both, or a file cannot be read or written.
        MissingDependencyError: If the `[eval]` extra is not installed.
    """
    require_matplotlib()
    pairs, alone = paired(run.first, run.second, run.contexts)
    asked = [_asked(one, other) for one, other in pairs]
    wanted = [messages(one) for one in both_orders(asked)]
    cached = CachedJudge(judge, name=f"{run.service.model} {run.service.url}", path=run.cache)
    said = []
    step = max(TOGETHER, run.together)
    for start in range(0, len(wanted), step):
        said += ask_all(cached, wanted[start : start + step], together=run.together)
        on_progress(len(said), len(wanted))
    judged = read_verdicts(said)
    rows = _rows(run, [one for one, _ in pairs], judged)
    problems = sorted({problem for j in judged for problem in j.problems})
    head = _head(run, command, alone=alone, problems=problems)
    report = Report(head=head, rows=tuple(rows), complete=True)
    return _write(report, folder, pairs=pairs, outcomes=[j.outcome for j in judged])


def _rows(run: JudgeRun, asked: Sequence[Answered], judged: Sequence[Judged]) -> list[Row]:
    """One row for each data set."""
    rows: list[Row] = []
    for name in dict.fromkeys(one.dataset for one in asked):
        own = [j for j, one in zip(judged, asked, strict=True) if one.dataset == name]
        rows.append(
            {
                "dataset": name,
                "series": f"{name}: {run.first.name} / {run.second.name}",
                "first": run.first.name,
                "second": run.second.name,
                **figures(own, seed=run.seed),
                "outcomes": [j.outcome for j in own],
            }
        )
    return rows


def _asked(first: Answered, second: Answered) -> Asked:
    return Asked(
        question=first.question,
        reference=first.reference,
        context=first.context,
        first=first.answer,
        second=second.answer,
    )


def _head(run: JudgeRun, command: str, *, alone: int, problems: Sequence[str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "experiment": run.name,
        "title": TITLE,
        "icae": icae.__version__,
        "commit": commit(),
        "judge": {"model": run.service.model, "url": run.service.url, "prompt": VERSION},
        "first": dict(run.first.record),
        "second": dict(run.second.record),
        "without_partner": alone,
        "problems": list(problems[:20]),
        "seed": run.seed,
        "settings": {"max_tokens": run.service.max_tokens, "contexts_shown": bool(run.contexts)},
        "intervals": f"{LEVEL:.0%} percentile bootstrap over questions, {RESAMPLES} resamples",
        "command": command,
    }


def _write(
    report: Report,
    folder: Path,
    *,
    pairs: Sequence[tuple[Answered, Answered]],
    outcomes: Sequence[str],
) -> Finished:
    file = ReportFile(folder=folder, name=str(report.head["experiment"]))
    file.save(report)
    head, table = report.head, Table(rows=report.rows, columns=COLUMNS)
    picture_line = [f"# {TITLE}", "", f"![{TITLE}]({file.name}.png)", ""]
    made = _made_by(head)
    notes = [*NOTES, f"Figures in brackets: {head['intervals']}."]
    lines = [*picture_line, *markdown_tables([table]), *(f"- {note}" for note in notes), "", *made]
    file.write(".md", ("\n".join(lines) + "\n").encode())
    picture = plot(report.rows, PANELS, title=TITLE)
    file.write(".png", picture)
    items = "".join(f"<li>{escaped(note)}</li>" for note in notes)
    section = "".join(
        [
            data_image(picture, TITLE),
            html_table([c.title for c in table.filled], table_texts(table.rows, table.filled)),
            _examples(pairs, outcomes),
            f'<ul class="notes">{items}</ul>',
            *(f'<p class="made">{escaped(line)}</p>' for line in made if line),
        ]
    )
    return Finished(
        payload=report.payload(),
        tables=(table,),
        files=tuple(file.beside(suffix) for suffix in file.suffixes),
        section=section,
    )


def _made_by(head: Any) -> list[str]:
    sources = ", ".join(
        f"{head[key]['file']} ({head[key]['sha256'][:12]})" for key in ("first", "second")
    )
    judge = head["judge"]
    return [
        f"`{head['command']}`",
        "",
        f"icae {head['icae']}, commit {head['commit'] or 'unknown'}; judge {judge['model']} at "
        f"{judge['url']}, prompt version {judge['prompt']}; answers {sources}; "
        f"{head['without_partner']} answers without a partner left out; seed {head['seed']}.",
    ]


def _examples(pairs: Sequence[tuple[Answered, Answered]], outcomes: Sequence[str]) -> str:
    """A few questions of every outcome, as HTML."""
    shown = []
    for name in (*OUTCOMES, "unparsed", "failed"):
        own = [pair for pair, outcome in zip(pairs, outcomes, strict=True) if outcome == name]
        for first, second in own[: EXAMPLES // 2]:
            texts = (name, first.question, first.reference, first.answer, second.answer)
            shown.append([text[:300] for text in texts])
    return "<h3>Examples</h3>\n" + html_table(
        ["outcome", "question", "reference", "first", "second"], shown
    )
