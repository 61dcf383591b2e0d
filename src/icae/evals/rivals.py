"""The memory beside its rivals: same frozen decoder, same questions, same budget of positions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.config.types import Answer, TokenIds
from icae.engine import Icae
from icae.errors import IcaeError
from icae.evals.answer_metrics import rouge_signature
from icae.evals.experiment import (
    BY_RATIO,
    Cell,
    Column,
    Comparison,
    Panel,
    Prepared,
    Row,
    plain,
)
from icae.evals.memories import Tick
from icae.evals.metadata import data_hashes
from icae.evals.metrics import bleu_counts, corpus_bleu_estimate
from icae.evals.qa import FIRST, FULL, MEMORY, NOTHING, SUMMARY, QaSettings, QuestionAnswering
from icae.evals.questions import Question, Room, read_question_sets
from icae.evals.readers import (
    FirstTokens,
    FullText,
    MemoryReader,
    NoText,
    OwnSummary,
    PlainReader,
    Reader,
    Reading,
)
from icae.evals.rival_kvpress import METHODS, KvPressReader
from icae.evals.rival_llmlingua import LlmLingua
from icae.evals.rival_texts import HeldOutText, RivalTextSettings, SlotHolder
from icae.evals.rival_trained import TrainedRival, load_rivals

LLMLINGUA = "LLMLingua"
WITHOUT_RATIO = (FULL, NOTHING)

Build = Callable[[Icae], Reader]

RIVALS: dict[str, Build] = {
    FULL: lambda engine: PlainReader(engine.runtime, engine.answerer, FullText()),
    NOTHING: lambda engine: PlainReader(engine.runtime, engine.answerer, NoText()),
    MEMORY: MemoryReader,
    FIRST: lambda engine: PlainReader(engine.runtime, engine.answerer, FirstTokens(engine=engine)),
    SUMMARY: lambda engine: PlainReader(engine.runtime, engine.answerer, OwnSummary(engine=engine)),
    LLMLINGUA: lambda engine: PlainReader(engine.runtime, engine.answerer, LlmLingua(engine)),
    **{
        name: lambda engine, method=method: KvPressReader(engine, method)  # type: ignore[misc]
        for name, method in METHODS.items()
    },
}
"""Name in the table -> what makes its reader; one more line is one more rival."""


@dataclass(frozen=True, kw_only=True)
class RivalsSettings(QaSettings):
    """Settings of the experiment; every rival of `RIVALS` takes part.

    Attributes:
        trained: Folders of trained rivals that take part too.
        texts: Held-out text that memory and trained rivals hold, or None to ask questions alone.
    """

    questions: int | None = 100
    trained: tuple[Path, ...] = ()
    texts: RivalTextSettings | None = None

    name = "rivals"
    title = "The memory beside its rivals, on the same frozen decoder and budget"

    def fixed(self) -> Mapping[str, Any]:
        """The settings that make rows comparable; ratios and trained rivals may be added."""
        if self.texts is None:
            return super().fixed()
        texts = {**asdict(self.texts), "paths": data_hashes(self.texts.paths)}
        return {**super().fixed(), "texts": texts}

    def prepare(self, engine: Icae, texts: Sequence[Path]) -> Prepared:
        """Draw questions and texts, and see which rivals can take part.

        Raises:
            InputError: If a file, its questions or the held-out text cannot be used.
            AdapterError: If a trained rival cannot be used with this base model.
            MissingDependencyError: If the `[eval]` extra is not installed.
        """
        signature = rouge_signature()
        trained = load_rivals(engine, self.trained)
        readers, absent = available(engine, RIVALS)
        readers |= {name: rival.reader for name, rival in trained.items()}
        room = Room(
            window=engine.runtime.context_window,
            answer=self.max_new_tokens,
            context=self.max_context,
        )
        sets = read_question_sets(
            texts, engine.tokenizer, room=room, count=self.questions, seed=self.seed
        )
        timed = {name: TimedReader(reader) for name, reader in readers.items()}
        answering = QuestionAnswering(engine, self, sets, timed)
        record = {
            "ratios": list(self.ratios),
            "rouge": signature,
            "absent": absent,
            "trained": {name: rival.record for name, rival in trained.items()},
        }
        comparison = Comparison(
            title="Not measured",
            columns=(Column(title="rival", key="kind"), Column(title="reason", key="reason")),
            compare=lambda rows: [{"kind": k, "reason": reason} for k, reason in absent.items()],
        )
        return Prepared(
            experiment=Rivals(engine, answering, timed, trained, self._texts(engine, trained)),
            record=record,
            comparison=comparison if absent else None,
        )

    def _texts(self, engine: Icae, trained: Mapping[str, TrainedRival]) -> HeldOutText | None:
        if self.texts is None:
            return None
        own = SlotHolder(runtime=engine.runtime, encode=MemoryReader(engine).memories)
        holders = {MEMORY: own, **{name: rival.holder for name, rival in trained.items()}}
        return HeldOutText(engine, self.texts, holders, seed=self.seed)


def available(
    engine: Icae, rivals: Mapping[str, Build]
) -> tuple[dict[str, Reader], dict[str, str]]:
    """The readers that can be built, and why the others cannot.

    Args:
        engine: The engine whose decoder they share.
        rivals: What makes each.
    """
    readers: dict[str, Reader] = {}
    absent: dict[str, str] = {}
    for name, build in rivals.items():
        try:
            readers[name] = build(engine)
        except IcaeError as error:
            absent[name] = error.message + ("" if error.fix is None else f" {error.fix}")
    return readers, absent


class TimedReader:
    """A reader with a clock.

    Attributes:
        seconds: Reading and answering so far, losses not counted.

    Args:
        reader: Who reads.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.seconds = 0.0

    def read(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[Reading]:
        """What the reader reads."""
        begin = time.perf_counter()
        result = self._reader.read(questions, ratio, tick)
        self.seconds += time.perf_counter() - begin
        return result

    def answer(self, readings: Sequence[Reading], limit: int, tick: Tick) -> list[Answer]:
        """What the reader answers."""
        begin = time.perf_counter()
        result = self._reader.answer(readings, limit, tick)
        self.seconds += time.perf_counter() - begin
        return result

    def losses(
        self, readings: Sequence[Reading], answers: Sequence[TokenIds], tick: Tick
    ) -> list[NDArray[np.float64]]:
        """The losses of the reader; the clock stands still."""
        return self._reader.losses(readings, answers, tick)


class Rivals:
    """Every data set, ratio and rival; then held-out text, where there is any.

    Args:
        engine: Adapter and base model.
        answering: Measures answers; holds the questions.
        readers: Who answers, by name.
        trained: Those of them that were trained.
        texts: Measures held-out text, or None.
    """

    columns = (
        Column(title="data set", key="dataset"),
        Column(title="ratio", key="ratio"),
        Column(title="reads", key="kind"),
        Column(title="loss (nats/token)", key="loss", digits=3),
        Column(title="F1", key="f1", digits=3),
        Column(title="AE loss (nats/token)", key="ae_loss", digits=3),
        Column(title="AE accuracy", key="ae_accuracy", digits=3),
        Column(title="continuation loss", key="continuation_loss", digits=3),
        Column(title="BLEU-4", key="bleu", digits=1),
        Column(title="ROUGE-L", key="rougeL", digits=3),
        Column(title="context tokens in the decoder", key="context_positions"),
        Column(title="their KV cache (MB)", key="kv_mb", digits=3),
        Column(title="seconds a question", key="seconds"),
    )

    def __init__(
        self,
        engine: Icae,
        answering: QuestionAnswering,
        readers: Mapping[str, TimedReader],
        trained: Mapping[str, TrainedRival],
        texts: HeldOutText | None,
    ) -> None:
        self.engine, self.answering, self.readers = engine, answering, dict(readers)
        self.trained, self.texts = dict(trained), texts

    @property
    def panels(self) -> tuple[Panel, ...]:
        """F1 and loss of each data set, what is held of each text, along the ratio."""
        figures = [
            (name, (("loss", "loss on the reference (nats per token)"), ("f1", "F1")))
            for name in self.answering.sets
        ]
        if self.texts is not None:
            held = (("ae_loss", "AE loss (nats per token)"), ("ae_accuracy", "AE token accuracy"))
            figures += [(name, held) for name in self.texts.lengths]
        return tuple(
            Panel(key=key, title=f"{name}: {title}", axis=BY_RATIO, dataset=name)
            for name, shown in figures
            for key, title in shown
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the figures."""
        return (
            "All rows share the frozen decoder, the questions and, at each ratio, the number of "
            "decoder positions that the memory's slots take. Trained are the memory and "
            f"{', '.join(self.trained) or 'nothing else'}. "
            "First tokens: truncation. Own summary: written by the decoder, at most that many "
            "tokens. LLMLingua: the decoder scores which tokens to drop; the question is not "
            "shown. kvpress: the whole context is read, then that many keys and values are kept.",
            *(_trained_note(name, rival) for name, rival in self.trained.items()),
            "Loss on the first reference answer under teacher forcing; F1 as in SQuAD; BLEU-4 "
            "(corpus, sacrebleu) of the answers against the first references.",
            "Seconds: reading (with compressing, summarising or dropping) and answering, the "
            "mean over questions in one run; of kvpress one question at a time, of the others "
            "in batches.",
            *((self.texts.note,) if self.texts is not None else ()),
            *(note for note in self.answering.notes if any(n in note for n in self.answering.sets)),
        )

    def cells(self) -> list[Cell]:
        """For each data set the rivals that no ratio changes, then each ratio; then texts."""
        free = [name for name in self.readers if name in WITHOUT_RATIO]
        bound = [name for name in self.readers if name not in WITHOUT_RATIO]
        ratios = self.answering.settings.ratios
        cells = [
            Cell(dataset=dataset, ratio=ratio, reader=name)
            for dataset in self.answering.sets
            for ratio, names in [(None, free), *((r, bound) for r in ratios)]
            for name in names
        ]
        if self.texts is not None:
            cells += self.texts.cells(ratios)
        return [self._keyed(cell) for cell in cells]

    def _keyed(self, cell: Cell) -> Cell:
        """The cell; the name of a trained rival tells its weights."""
        rival = self.trained.get(cell.reader or "")
        if rival is None:
            return cell
        return replace(cell, reader=f"{cell.reader} {rival.digest[:12]}")

    def _named(self, cell: Cell) -> Cell:
        """The cell that `_keyed` gave, by the reader's name."""
        known = [*self.readers, *(self.texts.readers if self.texts is not None else ())]
        return next(
            named
            for named in (replace(cell, reader=name) for name in known)
            if self._keyed(named) == cell
        )

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        if cell.dataset in self.answering.sets:
            return self.answering.cost(cell)
        assert self.texts is not None
        return self.texts.cost(self._named(cell))

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The row of a cell."""
        named = self._named(cell)
        if named.dataset in self.answering.sets:
            row = self._answered(named, rows, tick)
        else:
            assert self.texts is not None
            row = self.texts.measure(named, tick)
        kv_bytes = self.engine.kv_bytes(1) * row["context_positions"]
        return [{**row, "kv_mb": round(kv_bytes / 1e6, 3)}]

    def _answered(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> Row:
        """The row of a rival that answers questions."""
        assert cell.reader is not None
        timed = self.readers[cell.reader]
        before = timed.seconds
        (row,) = self.answering.measure(cell, rows, tick)
        single: dict[str, Any] = row["per_question"]
        counts = [
            bleu_counts(answer, reference)
            for answer, reference in zip(single["answer"], single["reference"], strict=True)
        ]
        return {
            **row,
            "bleu": plain(corpus_bleu_estimate(counts, seed=self.answering.settings.seed)),
            "seconds": round((timed.seconds - before) / row["questions"], 3),
        }


def _trained_note(name: str, rival: TrainedRival) -> str:
    record = rival.record
    return (
        f"{name}: {record['name']}, trained by the same loop with the decoder frozen: LoRA rank "
        f"{record['lora_rank']}, {record['updates']:g} updates of {record['batch_size']} samples."
    )
