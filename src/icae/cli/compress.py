"""`icae compress`: a document to a memory file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icae.cli import console, engine
from icae.cli.answering import load_memories
from icae.cli.kv import use_kv
from icae.cli.memory_output import positions_text
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype, Force, KeepKv, Runtime
from icae.cli.outcome import Outcome, reported
from icae.cli.output_file import check_output
from icae.cli.progress import eta_progress
from icae.cli.refinement import (
    Budget,
    MinFidelity,
    PolicyRatios,
    Prefer,
    RefineSteps,
    Saver,
    check_measuring,
    make_policy,
    parse_ratios,
    refine_in_place,
)
from icae.cli.span_table import exact_text, print_spans, span_payload
from icae.config.spans import check_ratio

if TYPE_CHECKING:
    from icae.engine import Icae
    from icae.memory import Memory


MemoryOutput = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Memory file to write.",
        show_default="FILE with the suffix .icae",
    ),
]

Ratio = Annotated[float, typer.Option("--ratio", metavar="N", help="Context tokens per slot.")]


Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on from the memory file that a stopped run with --min-fidelity left.",
    ),
]


@reported
def compress(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Document to compress; - reads standard input.")
    ],
    output: MemoryOutput = None,
    ratio: Ratio = 4.0,
    min_fidelity: MinFidelity = None,
    budget: Budget = None,
    ratios: PolicyRatios = None,
    prefer: Prefer = "size",
    refine: RefineSteps = None,
    kv: KeepKv = False,
    runtime: Runtime = "auto",
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    no_source: Annotated[
        bool, typer.Option("--no-source", help="Do not keep the text in the memory file.")
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Skip measuring the fidelity of each span.")
    ] = False,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
) -> Outcome:
    """Compress a document to a memory file and say how faithful it is.

    With --min-fidelity the file is brought up to date during a long refinement: spans that
    are not settled yet stand in it verbatim. Stopped, --resume goes on from there.
    """
    target = _target(file, output)
    inputs = [] if file == "-" else [Path(file)]
    check_output(target, if_exists="replace" if force or resume else "refuse", inputs=inputs)
    check_ratio(ratio)
    ladder = parse_ratios(ratios)
    check_measuring(no_verify, min_fidelity, budget, refine)
    from icae.data.documents import read_document

    document = read_document(file)
    with console.status("Loading the model"):
        icae = engine.open_engine(adapter=adapter, base=base, device=device, dtype=dtype)
    start = time.perf_counter()
    policy = make_policy(
        min_fidelity=min_fidelity,
        budget=budget,
        ratios=ladder or icae.info.ratios,
        prefer=prefer,
        steps=refine,
    )
    saver = Saver(target, keep_source=not no_source)
    with eta_progress("Compressing spans") as on_progress, saver.said_when_stopped():
        memory = icae.compress(
            document.text,
            ratio=ratio,
            name=document.name,
            verify=not no_verify,
            policy=policy,
            on_progress=on_progress,
            start=load_memories([target]) if resume and target.exists() else None,
            on_settled=saver.save_at_times,
        )
    saver.save(memory)
    if policy is None and refine is not None:
        memory = refine_in_place(icae, memory, target, steps=refine, keep_source=not no_source)
    if kv:
        reader = engine.open_reader(
            runtime=runtime, adapter=adapter, base=base, device=device, dtype=dtype, loaded=icae
        )
        use_kv(reader, memory, target, keep="always")
    payload = _payload(memory, target, icae, time.perf_counter() - start)
    return Outcome(payload=payload, show=lambda: _show(memory, payload))


def _target(file: str, output: Path | None) -> Path:
    if output is not None:
        return output
    if file == "-":
        raise typer.BadParameter(
            "standard input has no name to derive one from.", param_hint="--output"
        )
    if not Path(file).name:
        raise typer.BadParameter(f"{file!r} is not the path of a file.", param_hint="FILE")
    return Path(file).with_suffix(".icae")


def _payload(memory: Memory, target: Path, icae: Icae, seconds: float) -> dict[str, Any]:
    full, held = icae.kv_bytes(memory.tokens), icae.kv_bytes(memory.positions)
    return {
        "output": str(target),
        "tokens": memory.tokens,
        "slots": memory.slot_count,
        "verbatim_tokens": memory.verbatim_tokens,
        "positions": memory.positions,
        "ratio": memory.ratio,
        "fidelity": memory.fidelity,
        "spans": [span_payload(index, span) for index, span in enumerate(memory.spans)],
        "kv_bytes": {"full": full, "memory": held, "saved": full - held},
        "file_bytes": target.stat().st_size,
        "seconds": round(seconds, 3),
        "adapter": icae.name,
    }


def _show(memory: Memory, payload: dict[str, Any]) -> None:
    """Print the summary, then the fidelity of the spans."""
    kv = {name: console.size_text(count) for name, count in payload["kv_bytes"].items()}
    fidelity = memory.fidelity
    mean = "not measured" if fidelity is None else f"{console.percent_text(fidelity)} (mean)"
    console.print_figures(
        {
            "memory": payload["output"],
            "tokens": f"{memory.tokens} in {console.count_text(len(memory.spans), 'span')}",
            "positions": positions_text(memory),
            "KV cache": f"{kv['full']} -> {kv['memory']} ({kv['saved']} saved)",
            "file": console.size_text(payload["file_bytes"]),
            "fidelity": mean,
            "exact": exact_text(memory.spans) or "not tried",
            "adapter": payload["adapter"],
            "time": f"{payload['seconds']:.1f} s",
        }
    )
    print_spans(memory.spans, memory.span_source, fidelity)
