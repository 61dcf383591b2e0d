"""What study gains: answers and KL to the full text before and after, and the time it takes.

python benchmarks/study.py ../shared/data/triplets/eval/squad_dev_a.jsonl.xz --documents 10

Documents are the contexts of a file of questions that have at least eight of them, longest first.
The questions are held out: study never sees them. F1 of greedy answers against the references;
KL(full text || memory), nats per token, of the whole vocabulary, over the answers that the decoder
gives when the text stands verbatim in the place of the memory. F1: memory, studied, the finer
memory that it studied from, the text itself.
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import icae
from icae.compression.lessons import LessonWriter
from icae.compression.study import StudyConfig
from icae.decode.prefix import Prefix
from icae.engine import Engine
from icae.evals.text_metrics import token_f1
from icae.memory import Memory
from icae.model.losses import token_kl
from icae.model.objectives import DecoderTask


def documents(path: Path, questions: int, longest: int) -> Iterator[tuple[str, list[Any]]]:
    """Contexts of at most so many characters with so many questions, longest first."""
    found: dict[str, list[Any]] = defaultdict(list)
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            found[row["context"]].append(row)
    enough = [text for text in found if len(found[text]) >= questions and len(text) <= longest]
    for text in sorted(enough, key=len, reverse=True):
        yield text, found[text][:questions]


def f1(engine: Engine, memory: Memory, rows: Sequence[Any]) -> float:
    """Mean F1 of the answers from a memory."""
    answers = engine.ask_many([(memory, row["prompt"]) for row in rows], max_new_tokens=24)
    found = [
        token_f1(answer.text, row.get("answers") or [row["answer"]])
        for answer, row in zip(answers, rows, strict=True)
    ]
    return round(float(np.mean(found)), 3)


def divergence(engine: Engine, full: Memory, memory: Memory, tasks: Sequence[DecoderTask]) -> float:
    """Mean KL(full text || memory) of answers, nats per token."""
    both = [
        engine.runtime.logits_behind(engine.decoder.asked(own), tasks) for own in (full, memory)
    ]
    found = [
        float(token_kl(torch.log_softmax(teacher, dim=1), own).mean())
        for teacher, own in zip(*both, strict=True)
    ]
    return round(float(np.mean(found)), 3)


def measure(engine: Engine, text: str, rows: Sequence[Any], options: Any) -> dict[str, Any]:
    """Figures of one document."""
    full, memory = engine.verbatim(text), engine.compress(text, ratio=options.ratio)
    writer = LessonWriter(
        runtime=engine.runtime,
        tokenizer=engine.tokenizer,
        stop_ids=engine.answerer.stop_ids,
        length=24,
    )
    prompts = [row["prompt"] for row in rows]
    tasks = [own.task for own in writer.answered(Prefix.of_memory(full, "ft"), prompts)]
    finer = engine.compress(text, ratio=options.teacher_ratio, verify=False)
    config = StudyConfig(
        steps=options.steps,
        learning_rate=options.learning_rate,
        teacher_ratio=options.teacher_ratio,
    )
    wall, processor = time.perf_counter(), time.process_time()
    studied, history = engine.study(memory, config)
    seconds = time.process_time() - processor
    return {
        "tokens": memory.tokens,
        "questions": len(rows),
        "f1": [f1(engine, own, rows) for own in (memory, studied, finer, full)],
        "kl": [divergence(engine, full, own, tasks) for own in (memory, studied)],
        "fidelity": [memory.fidelity, studied.fidelity],
        "recall": [_recall(memory), _recall(studied)],
        "steps": studied.spans[0].refine_steps,
        "held_out_kl": [round(value, 3) for value in history],
        "processor_minutes": round(seconds / 60, 2),
        "wall_minutes": round((time.perf_counter() - wall) / 60, 2),
    }


def _recall(memory: Memory) -> float:
    return float(np.mean([span.recall or 0.0 for span in memory.spans]))


def main() -> None:
    """Print one JSON object for each document, then the means."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("questions", type=Path)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--skip", type=int, default=0, help="documents left out at first")
    parser.add_argument("--least", type=int, default=8, help="questions of each document")
    parser.add_argument("--longest", type=int, default=2000, help="characters")
    parser.add_argument("--adapter", default="smollm2-135m-kv")
    parser.add_argument("--ratio", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=StudyConfig().steps)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--teacher-ratio", type=float, default=StudyConfig().teacher_ratio)
    options = parser.parse_args()
    engine = icae.load(options.adapter)
    found = []
    known = documents(options.questions, options.least, options.longest)
    for text, rows in islice(known, options.skip, options.skip + options.documents):
        found.append(measure(engine, text, rows, options))
        print(json.dumps(found[-1]), flush=True)
    f1s, kls = (np.array([own[name] for own in found]) for name in ("f1", "kl"))
    means = {
        "f1": f1s.mean(axis=0).round(3).tolist(),
        "f1_rises": int((f1s[:, 1] > f1s[:, 0]).sum()),
        "kl": kls.mean(axis=0).round(3).tolist(),
        "processor_minutes": round(float(np.mean([o["processor_minutes"] for o in found])), 2),
    }
    print(json.dumps(means))


if __name__ == "__main__":
    main()
