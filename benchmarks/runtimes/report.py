"""The results as JSON, a Markdown page and plots."""

from __future__ import annotations

import json
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
        tables: Questions, long documents, latency and parity, by name; some may be missing.
        run: Command, hardware and settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    payload = {"run": run, "figures": [asdict(figure) for figure in figures], **tables}
    (folder / "bench.json").write_text(json.dumps(payload, indent=2) + "\n", encoding="utf-8")
    lines = [*_head(run), *_figures(figures)]
    pages = {"parity": _parity, "questions": _questions, "long": _long, "latency": _latency}
    for name, page in pages.items():
        if name in tables:
            lines += page(tables[name])
    (folder / "bench.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _plots(folder, tables)


def _head(run: dict[str, Any]) -> list[str]:
    return [
        "# Runtimes: speed and memory",
        "",
        f"`{run['command']}`: {run['hardware']} ({run['dtype']}), {run['versions']}; "
        f"{run['clock']} time, medians of {run['repeats']} unless said; load before the run "
        f"{run['load']}; {run['seconds']:.0f} s in all.",
        "",
        "All ratios are of one run on one machine.",
    ]


def _figures(figures: list[Figure]) -> list[str]:
    lines = ["", "| figure | measured | reach | | made of |", "|---|---|---|---|---|"]
    for figure in figures:
        mark = {True: "yes", False: "**no**", None: ""}[figure.reached]
        parts = ", ".join(f"{name} {value:.4g}" for name, value in figure.parts.items())
        lines.append(f"| {figure.name} | {figure.value:.3g} | {figure.reach} | {mark} | {parts} |")
    return lines


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
    lines = ["", "## Cost of n questions on one document", "", "![](questions.png)", ""]
    lines += ["| way | fixed s | s a question |", "|---|---|---|"]
    for name, line in table["lines"].items():
        lines.append(f"| {name} | {line['fixed_s']:.2f} | {line['each_s']:.2f} |")
    for name, after in table["compressing_pays_after"].items():
        pays = "never pays in time" if after is None else f"pays after {after:.1f} questions"
        lines += ["", f"Against *{name}*, compressing {pays}."]
    return lines


def _long(table: dict[str, Any]) -> list[str]:
    lines = ["", "## Long documents", "", "![](long.png)", ""]
    lines += ["| tokens | s | tokens/s | peak MiB | progress reports |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['tokens']} | {row['seconds']:.1f} | {row['tokens_per_s']:.0f} | "
        f"{row['peak_mib']:.0f} | {row['progress_reports']} |"
        for row in table["rows"]
    ]
    return [*lines, "", "One run each."]


def _latency(table: dict[str, Any]) -> list[str]:
    lines = ["", f"## Latency in torch, {table['written']} tokens written", ""]
    lines += [
        "| rows x tokens | full s | compress s | decode s | full / both | full / decode |",
        "|---|---|---|---|---|---|",
    ]
    return lines + [
        f"| {row['rows']}x{row['tokens']} | {row['full_s']:.1f} | {row['compress_s']:.1f} | "
        f"{row['decode_s']:.1f} | {row['full_over_both']:.2f} | {row['full_over_decode']:.2f} |"
        for row in table["rows"]
    ]


def _plots(folder: Path, tables: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if "questions" in tables:
        table = tables["questions"]
        figure, axes = pyplot.subplots(figsize=(6, 4))
        for name, line in table["lines"].items():
            axes.plot(table["questions"], line["seconds"], marker="o", label=name)
        axes.set(xlabel="questions on one document", ylabel="seconds in all", ylim=(0, None))
        axes.legend()
        figure.tight_layout()
        figure.savefig(folder / "questions.png", dpi=120)
    if "long" in tables:
        rows = tables["long"]["rows"]
        tokens = [row["tokens"] for row in rows]
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4))
        left.plot(tokens, [row["seconds"] for row in rows], marker="o")
        left.set(xlabel="tokens", ylabel="seconds to compress", xlim=(0, None), ylim=(0, None))
        right.plot(tokens, [row["peak_mib"] for row in rows], marker="o")
        right.set(xlabel="tokens", ylabel="peak memory, MiB", xlim=(0, None), ylim=(0, None))
        figure.tight_layout()
        figure.savefig(folder / "long.png", dpi=120)
