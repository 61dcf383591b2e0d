"""The model card, generated from what `icae.json` records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(info: Mapping[str, Any]) -> str:
    """Markdown model card of an adapter.

    Args:
        info: The adapter's record as plain data (`AdapterInfo` through `to_dict`).
    """
    model = info["model"]
    recipe = info.get("recipe", {})
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: icae",
        f"base_model: {info['base_model']}",
        "tags: [context-compression, icae, lora]",
        "---",
        f"# {info['name']}",
        "",
        f"An ICAE adapter (Ge et al. 2024, arXiv:2307.06945) for `{info['base_model']}`: it "
        "turns a span of text into memory slots that the frozen base model reads in place of "
        "the text.",
        "",
        recipe.get("description", "").strip(),
        "",
        "## Architecture",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in sorted(model.items())),
        f"| ratios trained | {', '.join(f'{r:g}x' for r in info['ratios'])} |",
        f"| base weights (sha256) | `{info['base_hash'][:16]}` |",
        f"| tokenizer (sha256) | `{info['tokenizer_hash'][:16]}` |",
        f"| code | `{info['commit'] or 'unknown'}` |",
        "",
        "## Measured",
        "",
    ]
    lines += list_figures(info.get("metrics", {}))
    lines += ["", "## Training data", "", *list_sources(info.get("data", {}))]
    lines += [
        "",
        "## Limits",
        "",
        "Slots are tied to this base model, this adapter and its tokenizer. Spans do not see "
        "each other. What a span lost shows in its fidelity; read it before trusting an answer.",
        "",
    ]
    return "\n".join(lines)


def list_figures(metrics: Mapping[str, float]) -> list[str]:
    """Measured figures as the lines of a table, or a line that says there are none."""
    if not metrics:
        return ["Nothing was measured for this adapter."]
    rows = [f"| {key} | {value:.4g} |" for key, value in sorted(metrics.items())]
    return ["| figure | value |", "|---|---|", *rows]


def list_sources(data: Mapping[str, Any]) -> list[str]:
    """Sources of the training data as the lines of a list."""
    return [f"- {key}: {value}" for key, value in sorted(data.items())] or ["Not recorded."]
