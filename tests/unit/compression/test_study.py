"""Study: a memory learns from its own document what it will be asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icae.compression.lessons import Lesson, LessonWriter
from icae.compression.study import Study, StudyConfig
from icae.decode.prefix import Prefix
from icae.errors import ConfigError, InputError
from icae.memory import Memory
from icae.model.losses import token_kl
from icae.model.objectives import recall
from mixed_prefix import KEY_VALUES

TEXT = "The inner thing is in the thin tin: a thief ran there, and the end is near.\n"
QUICK: dict[str, Any] = {"steps": 4, "batch": 3, "every": 2, "length": 4, "patience": 9}


@pytest.fixture
def engine(build_engine: Any) -> Any:
    return build_engine(**KEY_VALUES)


def writer(engine: Any) -> LessonWriter:
    return LessonWriter(
        runtime=engine.runtime,
        tokenizer=engine.tokenizer,
        stop_ids=engine.answerer.stop_ids,
        length=4,
    )


def test_loss_of_a_lesson_is_the_kl_over_the_tokens_it_keeps() -> None:
    task = recall(np.arange(4), given=2)
    teacher_TV, student_TV = torch.randn(2, 2, 9)
    lesson = Lesson.of_logits(task, teacher_TV)
    expected = token_kl(teacher_TV.log_softmax(dim=1), student_TV).mean()
    torch.testing.assert_close(lesson.loss(student_TV), expected)
    certain = Lesson.of_text(task, torch.device("cpu"))
    own = -student_TV.log_softmax(dim=1)[[0, 1], task.scored_ids].mean()
    torch.testing.assert_close(certain.loss(student_TV), own)


def test_lessons_are_what_the_decoder_says_of_a_memory(engine: Any) -> None:
    finer = engine.compress(TEXT, ratio=2)
    (lesson,) = writer(engine).answered(Prefix.of_memory(finer, "ft"), ["Who ran?"])
    answer = engine.ask(finer, "Who ran?", max_new_tokens=4)
    said = [i for i in lesson.task.scored_ids.tolist() if i not in engine.answerer.stop_ids]
    assert len(said) == answer.answer_tokens
    assert lesson.ids_TC[:, 0].tolist() == lesson.task.scored_ids.tolist()


def test_user_questions_the_general_ones_and_recall_are_asked(engine: Any) -> None:
    ids = engine.compressor.tokenize(TEXT).ids
    taught = Prefix.of_memory(engine.compress(TEXT, ratio=2), "ft")
    lessons = writer(engine).write(ids, taught, ["Who ran?", "Who ran?"])
    kinds = [lesson.task.objective for lesson in lessons]
    assert kinds.count("ft") >= 5
    assert {"lm", "recall"} <= set(kinds)


@pytest.mark.parametrize("form", [{}, KEY_VALUES], ids=["slots", "key-values"])
def test_steps_bring_the_answer_from_memory_to_that_from_a_finer_one(
    build_engine: Any, form: dict[str, Any]
) -> None:
    engine = build_engine(**form)
    memory = engine.compress(TEXT, ratio=4)
    ids = engine.compressor.tokenize(TEXT).ids
    finer = Prefix.of_memory(engine.compress(TEXT, ratio=2), "ft")
    lessons = list(writer(engine).answered(finer, ["Who ran?"]))
    config = StudyConfig(**(QUICK | {"steps": 30, "ae_weight": 0.0, "learning_rate": 0.1}))
    own = [ids[span.token_start : span.token_end] for span in memory.spans]
    study = Study(engine.runtime.form, memory.spans, own, lessons, config)
    before = study.look()
    while study.steps < 30:
        study.learn()
    assert study.look() < 0.7 * before
    assert [len(numbers) for numbers in study.numbers()] == [s.slots for s in memory.spans]


def test_a_studied_memory_says_so_and_is_measured_anew(engine: Any, tmp_path: Path) -> None:
    memory = engine.compress(TEXT, ratio=4)
    studied, _ = engine.study(memory, StudyConfig(**QUICK))
    assert all(span.refine_steps == 4 for span in studied.spans)
    assert all(span.refine_seconds > 0 for span in studied.spans)
    studied.save(tmp_path / "a.icae")
    assert Memory.load(tmp_path / "a.icae") == studied
    (fidelity,) = engine.runtime.fidelity(
        [studied.spans[0].payload], [engine.compressor.tokenize(TEXT).ids[:16]]
    )
    assert fidelity.share == studied.spans[0].fidelity


def test_study_ends_when_what_is_held_out_gains_no_more(engine: Any) -> None:
    memory = engine.compress(TEXT, ratio=4)
    config = StudyConfig(**(QUICK | {"steps": 50, "patience": 1, "learning_rate": 50.0}))
    _, held_out = engine.study(memory, config)
    assert len(held_out) < 25
    assert held_out[-1] > min(held_out)


def test_memories_that_cannot_study_and_odd_values_are_refused(engine: Any) -> None:
    memory = engine.compress(TEXT)
    for wrong in (memory + memory, engine.verbatim(TEXT)):
        with pytest.raises(InputError, match="studies one document"):
            engine.study(wrong, StudyConfig(**QUICK))
    with pytest.raises(ConfigError, match="out of range"):
        replace(StudyConfig(), ae_weight=-1.0)
