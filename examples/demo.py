"""The whole loop on one real document: compress, verify, write back, ask.

    python examples/demo.py [DOCUMENT] [--ratio 4]

Everything is measured as it runs; the same steps are `icae compress`, `icae reconstruct`
and `icae ask` on the command line.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import icae
from icae.data.documents import read_document

HERE = Path(__file__).parent


def show_memory(console: Console, engine: icae.Engine, memory: icae.Memory, seconds: float) -> None:
    """Print tokens, slots, KV bytes and the fidelity of the best and worst spans."""
    full, slots = engine.kv_bytes(memory.tokens), engine.kv_bytes(memory.slot_count)
    console.print(
        f"[bold]{memory.tokens} tokens -> {memory.slot_count} slots[/bold] "
        f"({memory.ratio:.2f}x) in {seconds:.1f} s; decoder KV cache "
        f"{full / 1e6:.1f} MB -> {slots / 1e6:.1f} MB"
    )
    order = sorted(range(len(memory.spans)), key=lambda i: memory.spans[i].fidelity or 0.0)
    table = Table("span", "tokens", "slots", "fidelity", "text", title="Weakest and best spans")
    for i in [*order[:3], *order[-3:]]:
        span = memory.spans[i]
        text = " ".join((memory.span_source(i) or "").split())[:60]
        fidelity = f"{span.fidelity:.2f}" if span.fidelity is not None else "-"
        table.add_row(str(i), str(span.tokens), str(span.slots), fidelity, text)
    console.print(table)
    if memory.fidelity is not None:
        console.print(
            f"Mean fidelity [bold]{memory.fidelity:.3f}[/bold]: the share of tokens the decoder "
            "gets right from the slots, each given the true text before it."
        )


def show_reconstruction(console: Console, engine: icae.Engine, memory: icae.Memory) -> None:
    """Write one span back by greedy decoding, beside the original."""
    best = max(range(len(memory.spans)), key=lambda i: memory.spans[i].fidelity or 0.0)
    made = engine.reconstruct(memory, spans=[best])[0]
    table = Table("original", "from the slots", title=f"Span {best}, written back", show_lines=True)
    table.add_row(made.original or "", made.text)
    console.print(table)
    if made.exact_prefix is not None:
        console.print(f"Exact up to {made.exact_prefix:.0%} of the span.")


def show_answers(
    console: Console, engine: icae.Engine, memory: icae.Memory, text: str, questions: list[str]
) -> None:
    """Ask each question from the memory and from the full text."""
    table = Table("question", "reads", "positions", "KV MB", "s", "answer", show_lines=True)
    for question in questions:
        from_memory = engine.ask(memory, question, max_new_tokens=48)
        from_text = engine.ask_text(text, question, max_new_tokens=48)
        for reads, answer in (("memory", from_memory), ("full text", from_text)):
            table.add_row(
                question if reads == "memory" else "",
                reads,
                str(answer.prompt_tokens),
                f"{engine.kv_bytes(answer.prompt_tokens) / 1e6:.1f}",
                f"{answer.seconds:.1f}",
                answer.text,
            )
    console.print(table)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", nargs="?", default=str(HERE / "pep-0347.txt"))
    parser.add_argument("--ratio", type=float, default=4.0)
    parser.add_argument("--questions", default=str(HERE / "questions.txt"))
    parser.add_argument("--adapter", default=None)
    options = parser.parse_args()
    console = Console(width=110)
    begin = time.perf_counter()
    engine = icae.load(options.adapter)
    console.print(
        f"Loaded adapter [bold]{engine.name}[/bold] on {engine.info.base_model} "
        f"in {time.perf_counter() - begin:.1f} s (the first time converts the base weights)"
    )
    document = read_document(options.document)
    begin = time.perf_counter()
    memory = engine.compress(document.text, ratio=options.ratio, name=document.name)
    show_memory(console, engine, memory, time.perf_counter() - begin)
    show_reconstruction(console, engine, memory)
    lines = Path(options.questions).read_text(encoding="utf-8").splitlines()
    show_answers(console, engine, memory, document.text, [line for line in lines if line.strip()])
    target = Path("demo-out") / f"{Path(options.document).stem}.icae"
    target.parent.mkdir(exist_ok=True)
    memory.save(target)
    console.print(f"Saved {target} ({target.stat().st_size / 1e3:.0f} kB). Try:")
    console.print(f'  icae ask {target} "What are the advantages of Subversion?"', markup=False)
    console.print(f"  icae inspect {target}", markup=False)


if __name__ == "__main__":
    main()
