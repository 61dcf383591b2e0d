"""The memory beside its rivals: same frozen decoder, same questions, same budget of positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icae.engine import Engine
from icae.evals.asking import QuestionExperiment
from icae.evals.experiment import Cell, Material
from icae.evals.held import slot_hold
from icae.evals.plots import lines_of
from icae.evals.readers import FIRST, FULL, LINGUA, MEMORY, NOTHING, SUMMARY, respondents
from icae.evals.respondents import by_memory
from icae.evals.rival_texts import RivalTexts
from icae.evals.tables import Row, columns_of
from icae.evals.text_metrics import bleu_figure, rouge_signature
from icae.evals.trained_rivals import load_rivals

PLAIN = (FULL, NOTHING, MEMORY, FIRST, SUMMARY, LINGUA)
"""Who stands beside the trained rivals."""


@dataclass(frozen=True, kw_only=True)
class Rivals(QuestionExperiment):
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
    grows = ("ratios", "trained", "texts")
    columns = columns_of(
        "dataset ratio kind loss f1 ae_loss ae_accuracy continuation_loss bleu rougeL "
        "context_positions kv_mb seconds",
        kind="reads",
        bleu="BLEU-4",
        kv_mb="their KV cache (MB)",
        seconds="seconds a question",
    )
    plots = lines_of(
        "loss f1 ae_loss ae_accuracy", along="ratio", loss="loss on the reference (nats per token)"
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
        """The settings that make rows comparable; held-out text cannot be added later."""
        texts = {} if self.texts is None else {"texts": self.texts.fixed()}
        return {**super().fixed(), **texts}

    def prepare(self, engine: Engine, inputs: Sequence[Path]) -> Material:
        """Draw questions and texts, and see which rivals can take part.

        Raises:
            InputError: If a file, its questions or the held-out text cannot be used.
            AdapterError: If a trained rival cannot be used with this base model.
            MissingDependencyError: If the `[eval]` extra is not installed.
        """
        signature = rouge_signature()
        trained = load_rivals(engine, self.trained)
        own, absent = respondents(engine, PLAIN)
        holds = {name: rival.hold for name, rival in trained.items()}
        own |= {name: by_memory(engine, hold) for name, hold in holds.items()}
        notes = [*absent, *(rival.note(name) for name, rival in trained.items())]
        notes += [] if self.texts is None else [self.texts.note]
        return Material(
            engine=engine,
            record={
                "ratios": list(self.ratios),
                "rouge": signature,
                "trained": {name: rival.record for name, rival in trained.items()},
            },
            sets=self.draw(engine, inputs),
            respondents=own,
            digests={name: rival.digest for name, rival in trained.items()},
            holds={MEMORY: slot_hold(engine), **holds},
            windows=() if self.texts is None else self.texts.draw(engine, seed=self.seed),
            notes=tuple(notes),
        )

    def cells(self, material: Material) -> list[Cell]:
        """Questions, then texts."""
        texts = [] if self.texts is None else self.texts.cells(self.ratios, material.holds)
        keyed = [replace(cell, reader=material.key(cell.reader or "")) for cell in texts]
        return super().cells(material) + keyed

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The row of a cell."""
        if self.texts is not None and cell.dataset not in material.sets:
            row = self.texts.measure(material, cell, seed=self.seed)
        else:
            row = self.asked(material, cell)
            single = row["per_question"]
            pairs = list(zip(single["answer"], single["reference"], strict=True))
            row["bleu"] = bleu_figure(pairs, seed=self.seed)
        kv_bytes = material.engine.kv_bytes(1) * row["context_positions"]
        return [{**row, "kv_mb": round(kv_bytes / 1e6, 3)}]
