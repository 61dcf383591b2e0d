"""`icae bulk`: many documents into Parquet files of memories."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.options import Count, ModelOptions, Ratio

if TYPE_CHECKING:
    from icae.serve.bulk import BulkSummary
    from icae.serve.bulk.run import Runner


@command
def bulk(
    *,
    source: Annotated[Path, Argument(metavar="INPUT")],
    output: Annotated[Path, Argument(metavar="OUTPUT")],
    ratio: Ratio = 4.0,
    workers: Annotated[int, Option(min=0, metavar="N")] = 0,
    threads: Count = 1,
    block: Count = 32,
    no_source: Annotated[bool, Option()] = False,
    no_verify: Annotated[bool, Option()] = False,
    model: ModelOptions,
) -> Outcome:
    """Compress many documents into Parquet files of memories.

    Stopped or killed, the same command goes on. A document that cannot be compressed is left
    out and listed in OUTPUT/rejected with the reason. Any number of workers gives the same
    files.

    Args:
        source: A .jsonl file (also .gz, .xz, .zst) or a .parquet file with a field text and
            optionally id, a document, or a folder of these.
        output: Folder of the result; one that is there goes on.
        workers: Processes that compress; 0: this one.
        threads: CPU threads of each worker.
        block: Documents that are compressed and kept together.
        no_source: Do not keep the text in the memories.
        no_verify: Skip measuring the fidelity of each span.
    """
    from icae.serve.bulk import BulkJob, open_engine, run_bulk

    job = BulkJob(
        source=source.absolute(),
        output=output.absolute(),
        load=functools.partial(open_engine, **asdict(model), threads=threads),
        ratio=ratio,
        verify=not no_verify,
        keep_source=not no_source,
        block_size=block,
        maker=_maker(model),
    )
    with console.progress("Compressing documents") as on_progress:
        summary = run_bulk(job, _runner(workers), on_progress=on_progress)
    payload = {"output": str(output), **asdict(summary), "workers": workers}
    return Outcome(payload=payload, show=lambda: _show(output, summary))


def _maker(model: ModelOptions) -> dict[str, str]:
    """What memories depend on beside the settings of the run, read without the model."""
    from icae.model.adapter_files import adapter_folder, adapter_hash, read_info

    folder = adapter_folder(model.adapter)
    return {
        "adapter": adapter_hash(folder),
        "base": model.base or read_info(folder).base_model,
        "dtype": model.dtype or "chosen for the device",
    }


def _runner(workers: int) -> Runner:
    from icae.serve.bulk import run_here
    from icae.serve.bulk.processes import Processes

    return Processes(workers=workers) if workers else run_here


def _show(output: Path, summary: BulkSummary) -> None:
    rejected = f", see {output}/rejected" if summary.rejected else ""
    console.print_figures(
        {
            "output": str(output),
            "memories": f"{summary.documents:,}",
            "rejected": f"{summary.rejected:,}{rejected}",
            "tokens": f"{summary.tokens:,} -> {summary.slots:,} slots",
            "blocks": f"{summary.blocks:,}, {summary.resumed:,} of them from before",
            "time": console.time_text(summary.seconds),
        }
    )
