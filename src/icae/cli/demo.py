"""`icae demo`: the whole loop on one document, measured as it runs."""

from __future__ import annotations

import difflib
import random
import re
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.text import Text
from typer import Argument, Option

from icae.cli import console
from icae.cli.command import AsJson, Outcome, command
from icae.cli.options import Ratio

if TYPE_CHECKING:
    from icae.engine import Engine
    from icae.memory import Memory

OWN_TEXT = Path(__file__).with_name("demo.txt")
OWN_QUESTIONS = (
    "When was the cottage built?",
    "Where does the key hang?",
    "What does the stove burn?",
    "How many steps does the lighthouse have?",
    "Who sells fish at the pier?",
)
QUESTIONS = ("What is this text about?",)
ANSWER_TOKENS = 24


@command
def demo(
    *,
    document: Annotated[
        str | None, Argument(metavar="[FILE]", show_default="notes for the guests of a cottage")
    ] = None,
    question: Annotated[list[str] | None, Option(metavar="TEXT")] = None,
    ratio: Ratio = 4.0,
    adapter: Annotated[str | None, Option(metavar="PATH", show_default="the default one")] = None,
    seed: Annotated[
        int | None, Option(min=0, metavar="N", show_default="another one each time")
    ] = None,
    output: Annotated[Path, Option("--output", "-o", metavar="FOLDER")] = Path("demo-out"),
    as_json: AsJson = False,
) -> Outcome:
    """Compress a document, write a part of it back, ask it, and draw how faithfully it is held.

    Nothing is prepared: each figure is measured as it runs, the part that is written back is
    picked at random, and each question is also asked of the full text by the same model.

    Args:
        document: A document of yours, in any format that `compress` reads.
        question: What to ask; repeatable.
        adapter: Adapter: a name, a folder or a hub id.
        seed: Picks the part that is written back.
        output: Where the memory and the pictures go.
    """
    import icae
    from icae.data.documents import read_document

    read = read_document(document or str(OWN_TEXT))
    questions = question or (OWN_QUESTIONS if document is None else QUESTIONS)
    output.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with console.status("Loading the model"):
        engine = icae.load(adapter)
    told = f"{read.name}: {len(read.text.split()):,} words. {engine.name} on "
    told += f"{engine.info.base_model}, loaded in {time.perf_counter() - begin:.1f} s"
    console.results().print(told)
    name = Path(read.name or "text").stem
    memory, figures = _compressed(engine, read.text, read.name or "text", ratio)
    back = _written_back(engine, memory, random.randrange(1000) if seed is None else seed)
    answers = _answers(engine, memory, read.text, questions)
    made = [output / f"{name}.icae", output / f"{name}.html"]
    memory.save(made[0])
    made += _pictures(engine, memory, made[1])
    _goodbye(made)
    payload = figures | {"written_back": back, "answers": answers, "files": [*map(str, made)]}
    payload["seconds"] = round(time.perf_counter() - begin, 1)
    return Outcome(payload=payload)


def _goodbye(made: Sequence[Path]) -> None:
    """Say what was written, and what to try next."""
    lines = (
        f"\nWritten: {', '.join(map(str, made))}",
        "Try it on a file of yours:",
        "  icae compress report.pdf -o report.icae",
        '  icae ask report.icae "What was decided?"',
        "  icae inspect report.icae --html report.html",
    )
    for line in lines:
        console.results().print(line, soft_wrap=True)


def _compressed(
    engine: Engine, text: str, name: str, ratio: float
) -> tuple[Memory, dict[str, Any]]:
    """Compress the text; print and return what it takes and what it cost."""
    begin = time.perf_counter()
    with console.progress("Compressing") as on_progress:
        memory = engine.compress(text, ratio=ratio, name=name, on_progress=on_progress)
    seconds = time.perf_counter() - begin
    full, held = engine.kv_bytes(memory.tokens), engine.kv_bytes(memory.positions)
    _heading("Compressed")
    rows = {
        "tokens": f"{memory.tokens:,} -> {memory.positions:,} slots ({memory.ratio:.2f} to 1)",
        "KV cache": f"{console.size_text(full)} -> {console.size_text(held)}",
        "took": f"{seconds:.1f} s, measuring included",
        "fidelity": f"{console.percent_text(memory.fidelity)} of its tokens are told rightly",
        "recall": f"{console.percent_text(memory.recall)} of what follows a few words is found",
    }
    console.print_figures(rows)
    return memory, {
        "tokens": memory.tokens,
        "slots": memory.positions,
        "kv_bytes": {"full": full, "slots": held},
        "fidelity": memory.fidelity,
        "recall": memory.recall,
        "compress_seconds": round(seconds, 3),
    }


def _written_back(engine: Engine, memory: Memory, seed: int) -> dict[str, Any]:
    """Write the span of a random token back from its slots; print it with its differences."""
    token = random.Random(seed).randrange(memory.tokens)
    index = next(i for i, span in enumerate(memory.spans) if token < span.token_end)
    (made,) = engine.reconstruct(memory, spans=[index])
    original = made.original or ""
    _heading(f"Span {index} of {len(memory.spans)}, written back from its slots (--seed {seed})")
    console.results().print(marked_differences(original, made.text))
    words = len(original.split())
    same = sum(
        block.size for block in _matcher(original.split(), made.text.split()).get_matching_blocks()
    )
    console.write_text(
        f"{same} of {words} words; [-only in the original-] {{+only from the slots+}}\n"
    )
    return {"span": index, "seed": seed, "original": original, "text": made.text}


def _matcher(left: Sequence[str], right: Sequence[str]) -> difflib.SequenceMatcher[str]:
    return difflib.SequenceMatcher(None, left, right, autojunk=False)


def marked_differences(original: str, written: str) -> Text:
    """A text and what was made of it in one: ``[-lost-]`` words and ``{+new+}`` ones."""
    left, right = (re.findall(r"\S+\s*", console.printable(text)) for text in (original, written))
    found = Text()
    for kind, a, b, c, d in _matcher(left, right).get_opcodes():
        if kind == "equal":
            found.append("".join(left[a:b]))
            continue
        for mark, style, words in (
            ("[-{}-] ", "red", left[a:b]),
            ("{{+{}+}} ", "green", right[c:d]),
        ):
            if words:
                found.append(mark.format(" ".join("".join(words).split())), style=style)
    return found


def _answers(
    engine: Engine, memory: Memory, text: str, questions: Sequence[str]
) -> list[dict[str, Any]]:
    """Ask each question of the memory and of the full text; print the answers side by side."""
    _heading("Asked: the memory, and beside it the full text, by the same model")
    rows: list[dict[str, Any]] = []
    for question in questions:
        from_memory = engine.ask(memory, question, max_new_tokens=ANSWER_TOKENS)
        from_text = engine.ask_text(text, question, max_new_tokens=ANSWER_TOKENS)
        console.write_text(f"{question}\n")
        row: dict[str, Any] = {"question": question}
        for reads, answer in (("memory", from_memory), ("full text", from_text)):
            said = console.preview(answer.text, width=54)
            console.write_text(f"  {reads:<9} {answer.prompt_tokens:>6,} positions  {said}\n")
            row[reads.replace(" ", "_")] = {
                "answer": answer.text,
                "positions": answer.prompt_tokens,
                "first_token_seconds": round(answer.first_token_seconds, 3),
            }
        rows.append(row)
    waits = [
        sum(row[reads]["first_token_seconds"] for row in rows) / len(rows)
        for reads in ("memory", "full_text")
    ]
    console.write_text(
        f"To the first word: {waits[0]:.2f} s from the memory, {waits[1]:.2f} s from the text\n"
    )
    return rows


def _pictures(engine: Engine, memory: Memory, page: Path) -> list[Path]:
    """Draw how faithfully the text is held: a web page and, with matplotlib, a picture."""
    from icae.memory.fidelity_page import fidelity_page

    drawn = fidelity_page(memory, engine.token_places(memory), title=page.stem)
    page.write_text(drawn, encoding="utf-8")
    if find_spec("matplotlib") is None:
        console.note("For the picture as PNG: pip install matplotlib")
        return []
    picture = page.with_suffix(".png")
    draw_memory(memory, picture)
    return [picture]


def draw_memory(memory: Memory, path: Path) -> None:
    """Draw fidelity and recall over the text: bars for spans, and a strip of its tokens."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    top, strip = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    starts = np.array([span.token_start for span in memory.spans])
    widths = np.array([span.tokens for span in memory.spans])
    held = [span.fidelity if span.fidelity is not None else np.nan for span in memory.spans]
    found = [span.recall if span.recall is not None else np.nan for span in memory.spans]
    top.bar(
        starts,
        held,
        widths,
        align="edge",
        color="#9db8d9",
        edgecolor="white",
        label="fidelity of a span",
    )
    top.plot(
        starts + widths / 2,
        found,
        "o",
        color="#c2452d",
        label="recall behind the whole memory",
        clip_on=False,
    )
    top.set_ylim(0, 1.05)
    top.set_ylabel("share of the tokens")
    top.set_title(f"{memory.tokens:,} tokens held in {memory.positions:,} slots", loc="left")
    top.legend(loc="lower right", framealpha=0.95)
    certain = np.concatenate(
        [
            np.full(span.tokens, np.nan)
            if span.token_fidelity is None
            else span.token_fidelity.probabilities
            for span in memory.spans
        ]
    )
    drawn = strip.imshow(
        certain[None], aspect="auto", cmap="RdYlBu", vmin=0, vmax=1, extent=(0, len(certain), 0, 1)
    )
    strip.set_yticks([])
    strip.set_ylabel("token by\ntoken", rotation=0, ha="right", va="center")
    strip.set_xlabel("position in the text, tokens")
    figure.colorbar(drawn, ax=strip, label="probability\nof the right one", pad=0.01)
    figure.savefig(path, dpi=150)


def _heading(text: str) -> None:
    console.results().print(Text(f"\n{text}", style="bold"), soft_wrap=True)
