"""`icae bulk`: many documents to memories, on one process or on many workers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icae.cli import console, engine
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype, Ratio
from icae.cli.outcome import Outcome, reported
from icae.cli.progress import eta_progress, time_text

if TYPE_CHECKING:
    from icae.serve.bulk import BulkSummary, Runner

Input = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="A .jsonl file (also .gz, .xz, .zst) or a .parquet file with a field text and "
        "optionally id, a document, or a folder of these.",
    ),
]

Output = Annotated[
    Path, typer.Argument(metavar="OUTPUT", help="Folder of the result; one that is there goes on.")
]

Workers = Annotated[
    int,
    typer.Option(
        "--workers", min=0, metavar="N", help="Ray workers; 0 compresses in this process."
    ),
]


@reported
def bulk(
    source: Input,
    output: Output,
    ratio: Ratio = 4.0,
    workers: Workers = 0,
    threads: Annotated[
        int, typer.Option("--threads", min=1, metavar="N", help="CPU threads of each worker.")
    ] = 1,
    block: Annotated[
        int,
        typer.Option(
            "--block", min=1, metavar="N", help="Documents that are compressed and kept together."
        ),
    ] = 32,
    no_source: Annotated[
        bool, typer.Option("--no-source", help="Do not keep the text in the memories.")
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Skip measuring the fidelity of each span.")
    ] = False,
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> Outcome:
    """Compress many documents into Parquet files of memories.

    Stopped or killed, the same command goes on. A document that cannot be compressed is left
    out and listed in OUTPUT/rejected with the reason. Any number of workers gives the same
    files. --device cuda gives each worker a GPU.
    """
    from icae.serve.bulk import BlockWork, BulkJob, run_bulk

    opener = engine.bulk_opener(
        adapter=adapter, base=base, device=device, dtype=dtype, threads=threads
    )
    job = BulkJob(
        inputs=(source.absolute(),),
        work=BlockWork(
            output=str(output.absolute()),
            open_encoder=opener,
            ratio=ratio,
            verify=not no_verify,
            keep_source=not no_source,
        ),
        block_size=block,
        maker=_maker(adapter, base, dtype),
    )
    with eta_progress("Compressing documents") as on_progress:
        summary = run_bulk(job, _runner(workers, threads, device), on_progress=on_progress)
    payload = {"output": str(output), **asdict(summary), "workers": workers}
    return Outcome(payload=payload, show=lambda: _show(output, summary))


def _maker(adapter: str | None, base: str | None, dtype: str | None) -> dict[str, str]:
    """What memories depend on beside the settings of the run, read without the model."""
    from icae.model.adapter_files import adapter_hash, default_adapter, read_info

    folder = default_adapter() if adapter is None else Path(adapter)
    info = read_info(folder)
    return {
        "adapter": adapter_hash(folder),
        "base": base or info.base_model,
        "dtype": dtype or "chosen for the device",
    }


def _runner(workers: int, threads: int, device: str | None) -> Runner:
    """This process, or workers."""
    if workers == 0:
        from icae.serve.bulk import run_here

        return run_here
    from icae.serve.bulk.ray import RayRunner

    gpus = 1 if device is not None and device.startswith("cuda") else 0
    return RayRunner(workers=workers, cpus=threads, gpus=gpus)


def _show(output: Path, summary: BulkSummary) -> None:
    figures: dict[str, Any] = {
        "output": str(output),
        "memories": f"{summary.documents:,}",
        "rejected": f"{summary.rejected:,}" + (f", see {output}/rejected" * bool(summary.rejected)),
        "tokens": f"{summary.tokens:,} -> {summary.slots:,} slots",
        "blocks": f"{summary.blocks:,}, {summary.resumed:,} of them from before",
        "time": time_text(summary.seconds),
    }
    console.print_figures(figures)
