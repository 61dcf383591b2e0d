"""lm-evaluation-harness on the tasks of examples/lm-eval, with log-likelihoods and with answers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from tests.clients.conftest import Served
from tests.recorded import world

pytest.importorskip("lm_eval", reason="lm_eval is in `make test-clients` alone")
ROOT = Path(__file__).parents[2]


def evaluate(model: str, url: str, task: str, served: Served, monkeypatch: Any, **more: Any) -> Any:
    monkeypatch.chdir(ROOT)
    lm_eval = importlib.import_module("lm_eval")
    tasks = importlib.import_module("lm_eval.tasks")
    return lm_eval.simple_evaluate(
        model=model,
        model_args={"model": served.model, "base_url": url, "max_retries": 1, **more},
        tasks=[task],
        task_manager=tasks.TaskManager(include_path=str(ROOT / "examples/lm-eval")),
        apply_chat_template="chat" in model,
        bootstrap_iters=0,
        limit=3,
    )


def test_log_likelihoods(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluate(
        "local-completions",
        f"{served.url}/completions",
        "pep_choice",
        served,
        monkeypatch,
        tokenizer=str(world.BASE),
        tokenizer_backend="huggingface",
    )
    for sample in found["samples"]["pep_choice"]:
        context, choice = sample["arguments"][0]
        own = served.post(
            "/completions",
            {"prompt": context + choice, "echo": True, "logprobs": 0, "max_tokens": 0},
        )["choices"][0]["logprobs"]
        start = next(i for i, at in enumerate(own["text_offset"]) if at >= len(context))
        told = float(sample["resps"][0][0][0])
        assert told == pytest.approx(sum(own["token_logprobs"][start:]), abs=1e-3)


def test_answers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{served.url}/chat/completions"
    found = evaluate("local-chat-completions", url, "pep_answers", served, monkeypatch)
    for sample in found["samples"]["pep_answers"]:
        messages = [{"role": "user", "content": f"{sample['doc']['context']}\n\n"}]
        messages[0]["content"] += sample["doc"]["question"]
        own = served.chat(messages, max_tokens=24, stop=["\n\n"])
        assert sample["resps"][0][0] == own["choices"][0]["message"]["content"]
    assert 0 <= found["results"]["pep_answers"]["f1,none"] <= 1
