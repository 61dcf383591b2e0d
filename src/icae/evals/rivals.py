"""The memory beside its rivals: same frozen decoder, same questions, same budget of positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icae.compression.refinement import RefineConfig
from icae.engine import Engine
from icae.errors import IcaeError
from icae.evals.asking import Asked, QuestionExperiment
from icae.evals.experiment import Cell
from icae.evals.held import slot_hold
from icae.evals.plots import Lines
from icae.evals.respondents import (
    FIRST,
    FULL,
    MEMORY,
    NOTHING,
    SUMMARY,
    MemoryRespondent,
    Respondent,
    TextRespondent,
    holding,
    known_respondents,
)
from icae.evals.rival_llmlingua import LlmLingua
from icae.evals.rival_texts import HeldOutText, RivalTexts
from icae.evals.tables import Row, Table, columns_of
from icae.evals.text_metrics import bleu_figure, rouge_signature
from icae.evals.trained_rivals import TrainedRival, load_rivals

PLAIN = (FULL, NOTHING, MEMORY, FIRST, SUMMARY)
"""Who needs no package, of `known_respondents`."""

PACKAGES: Mapping[str, Callable[[Engine], Respondent]] = {
    "LLMLingua": lambda engine: TextRespondent(engine=engine, source=LlmLingua(engine).texts),
}
"""Rivals that need a package: name in the table -> what makes it; one more line is one more."""


@dataclass(frozen=True, kw_only=True)
class RivalsAsked(Asked):
    """Questions and rivals.

    Attributes:
        absent: Rivals that cannot take part, with the reason.
        trained: Those of the respondents that were trained.
        texts: Held-out text, or None.
    """

    absent: Mapping[str, str]
    trained: Mapping[str, TrainedRival]
    texts: HeldOutText | None


@dataclass(frozen=True, kw_only=True)
class Rivals(QuestionExperiment[RivalsAsked]):
    """Every data set, ratio and rival; then held-out text, where there is any.

    Attributes:
        trained: Folders of trained rivals that take part too.
        texts: Held-out text that memory and trained rivals hold, or None to ask questions alone.
    """

    questions: int | None = 100
    trained: tuple[Path, ...] = ()
    texts: RivalTexts | None = None

    name = "rivals"
    title = "The memory beside its rivals, on the same frozen decoder and budget"
    question = "How does the memory stand beside other ways to shorten a context?"
    columns = columns_of(
        "dataset ratio kind loss f1 ae_loss ae_accuracy continuation_loss bleu rougeL "
        "context_positions kv_mb seconds",
        kind="reads",
        bleu="BLEU-4",
        kv_mb="their KV cache (MB)",
        seconds="seconds a question",
    )
    plots = (
        Lines(key="loss", title="loss on the reference (nats per token)", along="ratio"),
        Lines(key="f1", title="F1", along="ratio"),
        Lines(key="ae_loss", title="AE loss (nats per token)", along="ratio"),
        Lines(key="ae_accuracy", title="AE token accuracy", along="ratio"),
    )
    notes = (
        "All rows share the frozen decoder, the questions and, at each ratio, the number of "
        "decoder positions that the memory's slots take. Of the rivals only GIST and "
        "AutoCompressor are trained.",
        "First tokens: truncation. Own summary: written by the decoder, at most that many tokens. "
        "LLMLingua: the decoder scores which tokens to drop; the question is not shown.",
        "Loss on the first reference answer under teacher forcing; F1 as in SQuAD; BLEU-4 "
        "(corpus, sacrebleu) of the answers against the first references.",
        "Seconds: reading (with compressing, summarising or dropping) and answering, the mean "
        "over questions in one run.",
    )

    def fixed(self) -> dict[str, Any]:
        """The settings that make rows comparable; ratios and trained rivals may be added."""
        texts = {} if self.texts is None else {"texts": self.texts.fixed()}
        return {**super().fixed(), **texts}

    def prepare(self, engine: Engine, inputs: Sequence[Path]) -> RivalsAsked:
        """Draw questions and texts, and see which rivals can take part.

        Raises:
            InputError: If a file, its questions or the held-out text cannot be used.
            AdapterError: If a trained rival cannot be used with this base model.
            MissingDependencyError: If the `[eval]` extra is not installed.
        """
        signature = rouge_signature()
        trained = load_rivals(engine, self.trained)
        known = known_respondents(engine, RefineConfig())
        respondents: dict[str, Respondent] = {name: known[name] for name in PLAIN}
        absent: dict[str, str] = {}
        for name, build in PACKAGES.items():
            try:
                respondents[name] = build(engine)
            except IcaeError as error:
                absent[name] = error.message + ("" if error.fix is None else f" {error.fix}")
        for name, rival in trained.items():
            respondents[name] = MemoryRespondent(engine=engine, hold=holding(rival.hold))
        holds = {MEMORY: slot_hold(engine), **{name: r.hold for name, r in trained.items()}}
        return RivalsAsked(
            engine=engine,
            record={
                "ratios": list(self.ratios),
                "rouge": signature,
                "absent": absent,
                "trained": {name: rival.record for name, rival in trained.items()},
            },
            sets=self.draw(engine, inputs),
            respondents=respondents,
            digests={name: rival.digest for name, rival in trained.items()},
            absent=absent,
            trained=trained,
            texts=None if self.texts is None else self.texts.prepare(engine, holds, seed=self.seed),
        )

    def remarks(self, material: RivalsAsked) -> tuple[str, ...]:
        """How to read the figures, and what was measured."""
        return (
            *super().remarks(material),
            *(rival.note(name) for name, rival in material.trained.items()),
            *((material.texts.note,) if material.texts is not None else ()),
        )

    def compared(self, material: RivalsAsked, rows: Sequence[Row]) -> Table | None:
        """Who could not take part."""
        if not material.absent:
            return None
        return Table(
            title="Not measured",
            columns=columns_of("kind reason", kind="rival"),
            rows=[{"kind": name, "reason": reason} for name, reason in material.absent.items()],
        )

    def cells(self, material: RivalsAsked) -> list[Cell]:
        """Questions, then texts."""
        texts = [] if material.texts is None else material.texts.cells(self.ratios)
        keyed = [replace(cell, reader=material.key(cell.reader or "")) for cell in texts]
        return super().cells(material) + keyed

    def measure(self, material: RivalsAsked, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The row of a cell."""
        if cell.dataset in material.sets:
            row, seconds = self.asked(material, cell)
            single = row["per_question"]
            pairs = list(zip(single["answer"], single["reference"], strict=True))
            row["bleu"] = bleu_figure(pairs, seed=self.seed)
            row["seconds"] = round(seconds / row["questions"], 3)
        else:
            assert material.texts is not None
            row = material.texts.measure(cell, material.name(cell.reader))
        kv_bytes = material.engine.kv_bytes(1) * row["context_positions"]
        return [{**row, "kv_mb": round(kv_bytes / 1e6, 3)}]
