"""The model card of a trained folder, generated from its record."""

from __future__ import annotations

from collections.abc import Mapping

from huggingface_hub import EvalResult, ModelCardData

from icae.config.parsing import to_dict
from icae.config.types import Method
from icae.model.adapter_files import AdapterInfo
from icae.model.base_files import public_name

_RIVAL = (
    "with a frozen decoder: a rival of the in-context autoencoder, trained to be compared with it "
    "(`icae eval rivals --trained`). It is no adapter of icae."
)
_INTRODUCTIONS: Mapping[Method, str] = {
    "memory": "An ICAE adapter (Ge et al. 2024, arXiv:2307.06945) for `{base}`: it turns a span of "
    "text into memory slots that the frozen base model reads in place of the text.",
    "full-context": "A LoRA for `{base}` that answers with the **whole context in the prompt**: it "
    "compresses nothing and is no adapter of icae. It is the upper bound that answers from memory "
    "are compared with: `icae eval qa --upper-bound`.",
    "gist": f"GIST for `{{base}}` {_RIVAL}",
    "autocompressor": f"AutoCompressor for `{{base}}` {_RIVAL}",
}
_ALONE = "Spans do not see each other."
_LIMITS = """## Limits

Slots are tied to this base model, this adapter and its tokenizer. {spans} \
What a span lost shows in its fidelity; read it before trusting an answer.
"""


def model_card(info: AdapterInfo) -> str:
    """Markdown model card of a trained model."""
    settings = to_dict(info.model)
    if info.method == "full-context":
        settings = {k: v for k, v in settings.items() if k.startswith("lora_")}
    else:
        settings["ratios trained"] = ", ".join(f"{r:g}x" for r in info.ratios)
    figures = [f"| {key} | {value:.4g} |" for key, value in sorted(info.metrics.items())]
    lines = [
        "---",
        _metadata(info).to_yaml().strip(),
        "---",
        f"# {info.name}",
        "",
        _INTRODUCTIONS[info.method].format(base=info.base_model),
        "",
        str(info.recipe.get("description", "")).strip(),
        "",
        "## Architecture",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in sorted(settings.items())),
        f"| base weights (sha256) | `{info.base_hash[:16]}` |",
        f"| tokenizer (sha256) | `{info.tokenizer_hash[:16]}` |",
        f"| code | `{info.commit or 'unknown'}` |",
        "",
        "## Measured",
        "",
        *(["| figure | value |", "|---|---|", *figures] if figures else ["Nothing was measured."]),
        "",
        "## Training data",
        "",
        *([f"- {key}: {value}" for key, value in sorted(info.data.items())] or ["Not recorded."]),
        "",
    ]
    seen = info.model.previous_spans
    spans = f"A span sees up to {seen} before it: no part is edited." if seen else _ALONE
    limits = f"\n{_LIMITS.format(spans=spans)}" if info.method == "memory" else ""
    return "\n".join(lines) + limits


def _metadata(info: AdapterInfo) -> ModelCardData:
    """What the Hub reads at the top of a card: base, tags, and the figures as a model index."""
    own = info.method == "memory"
    return ModelCardData(
        license="apache-2.0",
        language=info.data.get("language"),
        library_name="icae" if own else "peft",
        base_model=public_name(info.base_model),
        datasets=info.data["datasets"].split(", ") if "datasets" in info.data else None,
        pipeline_tag="text-generation",
        tags=["context-compression", "icae" if own else info.method, "lora"],
        model_name=info.name,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type="text",
                dataset_name="held-out text",
                metric_type=key,
                metric_value=value,
            )
            for key, value in sorted(info.metrics.items())
        ]
        or None,
    )
