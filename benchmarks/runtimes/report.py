"""The results as JSON, a Markdown page and plots."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.runtimes.measure import Figure


def write_report(
    folder: Path, figures: list[Figure], tables: dict[str, Any], run: dict[str, Any]
) -> None:
    """Write ``bench.json``, ``bench.md`` and the plots.

    Args:
        folder: Where to; created.
        figures: The ratios.
        tables: Questions, long documents, latency and parity, by name.
        run: Command, hardware and settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    payload = {"run": run, "figures": [asdict(figure) for figure in figures], **tables}
    (folder / "bench.json").write_text(json.dumps(payload, indent=2) + "\n", encoding="utf-8")
    lines = [
        "# Runtimes: speed and memory",
        "",
        f"`{run['command']}`: {run['hardware']} ({run['dtype']}), {run['versions']}; "
        f"wall time, medians of {run['repeats']} unless said; load before the run "
        f"{run['load']}; {run['seconds']:.0f} s in all.",
        "",
        "All ratios are of one run on one machine.",
        "",
        *_figures(figures),
        *_parity(tables["parity"]),
        *_questions(tables["questions"]),
        *_long(tables["long"]),
        *_latency(tables["latency"]),
    ]
    (folder / "bench.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _plots(folder, tables)


def _table(headings: str, rows: Iterable[tuple[object, ...]]) -> list[str]:
    """A table in Markdown; ``headings`` is its first line without the outer bars."""
    dashes = "|".join("---" for _ in headings.split("|"))
    return [f"| {headings} |", f"|{dashes}|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def _figures(figures: list[Figure]) -> list[str]:
    rows = []
    for figure in figures:
        parts = ", ".join(f"{name} {value:.4g}" for name, value in figure.parts.items())
        mark = "yes" if figure.reached else "**no**"
        rows.append((figure.name, f"{figure.value:.3g}", figure.reach, mark, parts))
    return _table("figure | measured | reach | | made of", rows)


def _parity(table: dict[str, Any]) -> list[str]:
    verdict = "within" if table["within_tolerance"] else "**beyond**"
    return [
        "",
        "## Parity of torch float32 and llama.cpp bfloat16",
        "",
        f"{table['same']} of {table['questions']} answers of {table['tokens_each']} tokens are the "
        f"same token for token. Where they part, the two candidates differ by at most "
        f"{table['largest_gap_nats']:.3f} nats in torch float32, {verdict} the tolerance of "
        f"{table['tolerance_nats']}.",
    ]


def _questions(table: dict[str, Any]) -> list[str]:
    rows = [
        (name, f"{line['fixed_s']:.2f}", f"{line['each_s']:.2f}")
        for name, line in table["lines"].items()
    ]
    lines = ["", "## Cost of n questions on one document", "", "![](questions.png)", ""]
    lines += _table("way | fixed s | s a question", rows)
    for name, after in table["compressing_pays_after"].items():
        pays = "never pays in time" if after is None else f"pays after {after:.1f} questions"
        lines += ["", f"Against *{name}*, compressing {pays}."]
    return lines


def _long(table: dict[str, Any]) -> list[str]:
    rows = [
        (
            row["tokens"],
            f"{row['seconds']:.1f}",
            f"{row['tokens_per_s']:.0f}",
            f"{row['peak_mib']:.0f}",
            row["progress_reports"],
        )
        for row in table["rows"]
    ]
    made = _table("tokens | s | tokens/s | peak MiB | progress reports", rows)
    return ["", "## Long documents", "", "![](long.png)", "", *made, "", "One run each."]


def _latency(table: dict[str, Any]) -> list[str]:
    seconds, ratios = ("full_s", "compress_s", "decode_s"), ("full_over_both", "full_over_decode")
    rows = [
        (
            f"{row['rows']}x{row['tokens']}",
            *(f"{row[name]:.1f}" for name in seconds),
            *(f"{row[name]:.2f}" for name in ratios),
        )
        for row in table["rows"]
    ]
    made = _table(
        "rows x tokens | full s | compress s | decode s | full / both | full / decode", rows
    )
    return ["", f"## Latency in torch, {table['written']} tokens written", "", *made]


def _plots(folder: Path, tables: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    table = tables["questions"]
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, line in table["lines"].items():
        axes.plot(table["questions"], line["seconds"], marker="o", label=name)
    axes.set(xlabel="questions on one document", ylabel="seconds in all", ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(folder / "questions.png", dpi=120)

    rows = tables["long"]["rows"]
    figure, pair = pyplot.subplots(1, 2, figsize=(9, 4))
    plots = (("seconds", "seconds to compress"), ("peak_mib", "peak memory, MiB"))
    for axes, (name, label) in zip(pair, plots, strict=True):
        axes.plot([row["tokens"] for row in rows], [row[name] for row in rows], marker="o")
        axes.set(xlabel="tokens", ylabel=label, xlim=(0, None), ylim=(0, None))
    figure.tight_layout()
    figure.savefig(folder / "long.png", dpi=120)
