"""Answering questions: the memory of a context against the context and what else could be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from icae.compression.refinement import RefineConfig
from icae.engine import Engine
from icae.evals.asking import QuestionExperiment
from icae.evals.bootstrap import mean_figure, ratio_figure
from icae.evals.experiment import Material, Opening, check_known
from icae.evals.plots import lines_of, pareto_of
from icae.evals.readers import (
    ADAPTIVE,
    FIRST,
    FULL,
    MEMORY,
    NOTED,
    NOTHING,
    OTHER,
    PEERS,
    PEERS_NOTE,
    REFINED,
    SUMMARY,
    UPPER,
    VERBATIM,
    respondents,
)
from icae.evals.respondents import Respondent, by_text, whole_text
from icae.evals.standing import standing
from icae.evals.tables import Row, Table, columns_of
from icae.evals.text_metrics import rouge_signature
from icae.model.adapter import load_trained
from icae.model.adapter_files import FULL_CONTEXT, adapter_hash, read_info
from icae.model.full_context import FullContextModel

READERS = (MEMORY, FULL, NOTHING, FIRST, SUMMARY, OTHER)
"""Who answers unless others are named; the upper bound comes with its folder."""
ALL_READERS = (*dict.fromkeys((*READERS, REFINED, ADAPTIVE, NOTED, VERBATIM, *PEERS)),)
"""What may be asked for by name."""

DIFFERENCES = ("f1", "rougeL", "loss", "accuracy", "empty", "repeating", "unterminated")
"""Figures of which the difference (memory minus the other) is taken."""
COMPARED = columns_of(
    "dataset ratio kind f1 f1_ratio rougeL loss accuracy empty repeating unterminated",
    kind="memory minus",
    accuracy="choice accuracy",
)


@dataclass(frozen=True, kw_only=True)
class Qa(QuestionExperiment):
    """The memory against everybody else.

    Attributes:
        readers: Who answers, of `ALL_READERS`.
        refine_steps: Most refinement steps of a span, for the refined memory.
        upper_bound: Folder of a full-context reader, or None to leave the upper bound out.
    """

    readers: tuple[str, ...] = READERS
    upper_bound: Path | None = None
    refine_steps: int = 60

    name = "qa"
    title = "Answers from memory, from the context and from what else could be read"
    question = "Are questions answered from memory as from the full context?"
    columns = columns_of(
        "dataset ratio kind positions em f1 rouge1 rouge2 rougeL loss accuracy empty "
        "repeating unterminated answer_tokens kv_mb seconds cost",
        **{"kind": "reads", "accuracy": "choice accuracy", "seconds": "seconds a question"},
        **{"kv_mb": "KV cache of the context (MB)", "cost": "USD for 1,000 questions"},
    )
    plots = (
        *lines_of("f1 loss", along="ratio", loss="loss on the reference (nats per token)"),
        *pareto_of("f1", "F1"),
    )
    opening = Opening(
        name="pareto",
        title="Answers by what they take",
        text="F1 of answers against decoder positions and against seconds: further up is better, "
        "further left is cheaper; nobody is above the grey steps.",
        plots=pareto_of("f1", "F1"),
    )
    quick: ClassVar = {
        "ratios": (2.0, 4.0, 8.0),
        **{"questions": 8, "max_new_tokens": 16, "max_context": 256},
        "readers": (MEMORY, FULL, NOTHING, *(name for name in PEERS if name != SUMMARY)),
    }
    notes = (
        "Memory: the slots of the context. First tokens: the context cut off after as many "
        "tokens as the memory takes. Own summary: the frozen decoder's summary of at most as "
        "many tokens. Upper bound: the whole context read through a LoRA tuned for it. Other "
        "memory: the slots of another question's context; what the slots carry is what the "
        "own memory adds to that.",
        "Refined memory: the slots after gradient steps against the decoder. Adaptive memory: "
        "the ratio of each span, or verbatim, chosen within as many positions. Memory with "
        "note: the slots, and in the prompt the figures, names and code that they lose. "
        "Verbatim memory: the tokens of the context where slots stand, nothing compressed.",
        "Positions: decoder positions read before the answer, prompt included (mean).",
        "Answers: greedy, up to the limit. EM and F1 as in SQuAD, ROUGE by rouge-score, the best "
        "reference counts. Loss: mean over questions of the loss on the first reference answer "
        "and its end, under teacher forcing.",
        "Empty: no letter or digit. Repeating: a phrase three times or more in a row, six "
        "words or more. Unterminated: cut off by the limit.",
        "Seconds: reading (with compressing, pruning, summarising) and answering, the mean over "
        "the questions in one run; a context is read once for all of its questions.",
        "USD: every decoder position of a prompt and every token that is read beforehand, to "
        "compress, prune or sum up, at the price of input; every token of an answer at that of "
        "output. The prices are settings, not anybody's offer.",
        PEERS_NOTE,
    )

    grows = ("ratios", "readers", "upper_bound")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("This reader is not known.", self.readers, ALL_READERS)
        RefineConfig(steps=self.refine_steps)  # checks the steps

    def prepare(self, engine: Engine, inputs: Sequence[Path]) -> Material:
        """Draw the questions and load the upper bound.

        Raises:
            InputError: If a file or its questions cannot be used.
            AdapterError: If the upper bound cannot be used with this base model.
            MissingDependencyError: If the `[eval]` extra is not installed.
        """
        signature = rouge_signature()
        refine = RefineConfig(steps=self.refine_steps)
        own, absent = respondents(engine, self.readers, refine=refine)
        record: dict[str, Any] = {"upper_bound": None}
        digests: dict[str, str] = {}
        if self.upper_bound is not None:
            own[UPPER], record["upper_bound"] = _upper_bound(engine, self.upper_bound)
            digests[UPPER] = record["upper_bound"]["hash"]
        sets = self.draw(engine, inputs)
        record |= {
            "ratios": list(self.ratios),
            "rouge": signature,
            "sets": [questions.record for questions in sets.values()],
        }
        return Material(
            engine=engine,
            record=record,
            sets=sets,
            respondents=own,
            digests=digests,
            notes=absent,
        )

    def verdict(self, rows: Sequence[Row]) -> str:
        """How the memory stands beside its peers."""
        return standing(rows, "f1", "F1", by_dataset=True)

    def compared(self, material: Material, rows: Sequence[Row]) -> Table | None:
        """The memory against every other reader, question by question."""
        compared = compare_readers(rows, seed=self.seed)
        return Table(compared, COMPARED, title="The memory against the others")


def _upper_bound(engine: Engine, folder: Path) -> tuple[Respondent, dict[str, Any]]:
    """The decoder with a LoRA tuned to read whole contexts, and what the result says of it."""
    info = read_info(folder, FULL_CONTEXT)
    tuned = load_trained(
        FullContextModel,
        info,
        folder,
        engine.runtime.model.decoder,
        base_model=engine.provenance.base_model,
        base_hash=engine.provenance.base_hash,
    )
    record = {
        "name": info.name,
        "hash": adapter_hash(folder, FULL_CONTEXT),
        "lora_rank": info.model.lora_rank,
        "adapter_lora_rank": engine.config.lora_rank,
    }
    return by_text(engine, whole_text, tuned.decoder), record


def compare_readers(rows: Sequence[Row], *, seed: int) -> list[Row]:
    """One row for each data set, ratio and other reader, with paired intervals over contexts."""
    return [
        _difference(own, other, seed)
        for own in rows
        for other in rows
        if own["kind"] == MEMORY != other["kind"]
        and other["dataset"] == own["dataset"]
        and other["ratio"] in (None, own["ratio"])
    ]


def _difference(own: Row, other: Row, seed: int) -> Row:
    mine, theirs = own["per_question"], other["per_question"]
    groups = mine["group"]
    row: Row = {"dataset": own["dataset"], "ratio": own["ratio"], "kind": other["kind"]}
    for name in DIFFERENCES:
        if name in mine and name in theirs:
            gaps = np.asarray(mine[name]) - np.asarray(theirs[name])
            row[name] = mean_figure(gaps, groups=groups, seed=seed)
    # A ratio to what may be nothing says nothing.
    above_zero = mean_figure(theirs["f1"], groups=groups, seed=seed)["low"] > 0
    ratio = ratio_figure(mine["f1"], theirs["f1"], groups=groups, seed=seed)
    row["f1_ratio"] = ratio if above_zero else None
    return row
