"""`icae plan`: what memories of many documents will cost, before any is made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.options import Count, Ratio
from icae.errors import ConfigError

if TYPE_CHECKING:
    from icae.config import ModelConfig
    from icae.model.sizes import ModelSizes
    from icae.serve.plan import Plan, Workload


@dataclass(frozen=True, kw_only=True)
class WorkloadOptions:
    """What is to be compressed, and how it is used.

    Attributes:
        documents: Number of documents.
        tokens: Tokens of each.
        adapter: Adapter folder, for span length and LoRA.
        span_length: Tokens of a span.
        dtype: Precision of slots and key-value cache.
        no_source: The text is not kept beside the slots.
        no_verify: Fidelity is not measured.
        question: Tokens of a question and its prompt.
        answer: Tokens of an answer.
    """

    documents: Count = 1000
    tokens: Count = 2048
    ratio: Ratio = 4.0
    adapter: Annotated[
        str | None,
        Option(
            metavar="PATH",
            show_default="the default adapter for its base, else 512-token spans and rank 32",
        ),
    ] = None
    span_length: Annotated[int | None, Option(min=1, metavar="N", show_default="the adapter's")] = (
        None
    )
    dtype: Annotated[Literal["bfloat16", "float32"], Option()] = "bfloat16"
    no_source: Annotated[bool, Option()] = False
    no_verify: Annotated[bool, Option()] = False
    question: Count = 24
    answer: Count = 64

    def workload(self, config: ModelConfig) -> Workload:
        """The same, for an adapter of that architecture."""
        from icae.serve.plan import TEXT_BYTES_PER_TOKEN, Workload

        return Workload(
            tokens=self.tokens,
            ratio=self.ratio,
            model=config,
            dtype=self.dtype,
            verified=not self.no_verify,
            text_bytes=0.0 if self.no_source else TEXT_BYTES_PER_TOKEN,
            question_tokens=self.question,
            answer_tokens=self.answer,
        )


@command
def plan(
    *,
    model: Annotated[str | None, Argument(metavar="[MODEL]", show_default="the adapter's")] = None,
    options: WorkloadOptions,
    tflops: Annotated[
        float | None,
        Option(metavar="X", show_default="0.22: 2 CPU cores in bfloat16, as measured"),
    ] = None,
    tokens_per_second: Annotated[float | None, Option(metavar="X", show_default=False)] = None,
    devices: Count = 1,
) -> Outcome:
    """Say what memories of many documents will cost: positions, cache, disk, hours, break-even.

    Nothing is loaded, compressed or timed: the model is built without weights, its cache measured,
    the rest is formulas. docs/planning.md sets them beside measured points.

    Args:
        model: Base model: a name, a folder, or a config.json with its sizes; of a hub id,
            config.json is downloaded once. No weights are read.
        tflops: What one device sustains, TFLOP/s.
        tokens_per_second: Tokens that one device compresses a second, measured; in place of
            --tflops.
        devices: Devices that share the work.
    """
    from icae.model.sizes import ModelSizes
    from icae.opening import config_file
    from icae.serve import plan as planning

    base, config = _architecture(model, options.adapter, options.span_length)
    sizes = ModelSizes.of_file(config_file(base), dtype=options.dtype)
    made = planning.plan(sizes, options.workload(config))
    rate = _rate(made, options.tokens, tflops, tokens_per_second)
    n = options.documents
    hours = n * made.compress_tflop / rate / 3600
    payload = {
        "model": base,
        "documents": n,
        "tokens": options.tokens,
        "ratio": options.ratio,
        "span_length": config.span_length,
        "dtype": options.dtype,
        **asdict(made),
        "all": _all(made, options),
        "tflops": rate,
        "devices": devices,
        "device_hours": hours,
        "hours": hours / devices,
        "sizes": _sizes(sizes),
    }
    return Outcome(payload=payload, show=lambda: _show(payload))


def _all(made: Plan, options: WorkloadOptions) -> dict[str, Any]:
    """The same of all documents."""
    n = options.documents
    return {
        "tokens": options.tokens * n,
        "slots": made.slots * n,
        "kv_bytes": {name: one * n for name, one in asdict(made.kv_bytes).items()},
        "file_bytes": made.file_bytes * n,
    }


def _sizes(sizes: ModelSizes) -> dict[str, int]:
    return {
        "hidden": sizes.hidden,
        "vocabulary": sizes.vocabulary,
        "layers": len(sizes.cache.layers),
        "weights": sizes.weights,
    }


def _architecture(
    model: str | None, adapter: str | None, span_length: int | None
) -> tuple[str, ModelConfig]:
    """The base model, and the architecture of the adapter that there is or will be."""
    from icae.config import ModelConfig
    from icae.model.adapter_files import adapter_folder, read_info

    info = read_info(adapter_folder(adapter))
    base = model or info.base_model
    own = adapter is not None or base == info.base_model
    config = info.model if own else ModelConfig()
    return base, config if span_length is None else replace(config, span_length=span_length)


def _rate(made: Plan, tokens: int, tflops: float | None, tokens_per_second: float | None) -> float:
    """What one device sustains, TFLOP/s."""
    from icae.config.parsing import check
    from icae.serve.plan import MEASURED_TFLOPS

    if tflops is not None and tokens_per_second is not None:
        raise ConfigError(
            "The speed of a device is given twice.",
            got=f"--tflops {tflops:g} and --tokens-per-second {tokens_per_second:g}",
            expected="one of them",
        )
    if tokens_per_second is not None:
        tflops = made.compress_tflop / tokens * tokens_per_second
    rate = MEASURED_TFLOPS if tflops is None else tflops
    check(0 < rate < math.inf, "tflops is out of range.", rate, "> 0")
    return rate


def _show(payload: dict[str, Any]) -> None:
    size, every, n = console.size_text, payload["all"], payload["documents"]
    kv, kv_all, work = payload["kv_bytes"], every["kv_bytes"], payload["question_tflop"]
    rows = [
        ("", "a document", f"{n:,} documents"),
        ("tokens", f"{payload['tokens']:,}", f"{every['tokens']:,}"),
        ("slots", f"{payload['slots']:,}", f"{every['slots']:,}"),
        ("KV cache, full context", size(kv["full"]), size(kv_all["full"])),
        ("KV cache, slots", size(kv["slots"]), size(kv_all["slots"])),
        ("memory files", size(payload["file_bytes"]), size(every["file_bytes"])),
        (
            "compressing, TFLOP",
            f"{payload['compress_tflop']:.3g}",
            f"{payload['compress_tflop'] * n:.3g}",
        ),
        ("a question, full context", f"{work['full']:.3g} TFLOP", ""),
        ("a question, slots", f"{work['slots']:.3g} TFLOP", ""),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    out = console.results()
    for label, one, many in rows:
        line = f"{label:<{widths[0]}}  {one:>{widths[1]}}  {many:>{widths[2]}}"
        out.print(line.rstrip(), soft_wrap=True)
    hours, even = payload["device_hours"], payload["break_even_questions"]
    spread = (
        "" if payload["devices"] == 1 else f"; {payload['hours']:.3g} h on {payload['devices']}"
    )
    out.print()
    console.print_figures(
        {
            "model": f"{payload['model']}, spans of {payload['span_length']} tokens, "
            f"{payload['ratio']:g}x, {payload['dtype']}",
            "compute": f"{hours:.3g} device hours at {payload['tflops']:.3g} TFLOP/s{spread}",
            "break-even": "never"
            if even is None
            else f"{even:.2g} questions a document, against reading its text anew for each",
        }
    )
