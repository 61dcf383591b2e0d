"""F1 of an answer's words, for the tasks that are answered in free text."""

from __future__ import annotations

from typing import Any

from icae.evals.text_metrics import token_f1


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The F1 of one answer."""
    references = doc["answers"] if "answers" in doc else [doc["choices"][doc["right"]]]
    return {"f1": token_f1(results[0], references)}
