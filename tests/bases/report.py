"""The page of bases: ``python -m tests.bases.report > docs/bases.md`` takes all of them through."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "bases.md"

HEADING = """\
# Base models

Written by `python -m tests.bases.report > docs/bases.md`; do not edit by hand.

What a base needs is tried, not looked up by its name. `icae check BASE` tries it on a few random
token ids and prints by how much each of these is off; whatever loads a base for the first time
does the same, keeps what it found beside the cache, and refuses a base that fails.

| check | what has to hold |
|---|---|
{checks}
Differences are shares of the largest logit. Allowed are 0.1 % in float32, 2 % in float16 and 8 %
in bfloat16 (there, of the middle one of the places); a second pass has to be equal bit for bit.

Weights that bitsandbytes quantised to 4 bits (NF4) are a base in both forms of memory, for
encoding, training the LoRA and answering; 8 bits are refused, because what a row gives depends on
those beside it (`cache: off by 1.9%`). Both were tried on a CPU, `tests/bases/test_quantised.py`.
Refused in a sentence before anything is tried: weights quantised otherwise (GPTQ, AWQ, FP8, MXFP4;
refused untried: give the weights they were made from), models with an encoder, models whose
positions cannot be given (recurrent ones, ALiBi), embeddings that are projected to the hidden
size, folders of PEFT adapters, weights with tensors missing or left over, tokenizers without a
fast form. Code that lies beside weights runs with
`icae --trust-remote-code ...` alone; nothing is asked.

Of a model for images its text part is the base. Where the frequencies of rotary positions change
with length (`longrope`), a base is read up to the length at which they do. The attention in use
is `sdpa` where the model can use it, else `eager`. Dropout is off in the frozen weights.

An adapter records the hash of its base's weights, and of the settings that change what weights
compute (rope, scaling, norms, windows). Other settings are refused. Other weights of the same
shapes and tokenizer (dequantised, merged) are taken with a warning that says the fidelity and
recall of a built-in text, and refused where its fidelity is below 30 %.

## What was tried

Tiny random models of each architecture (2 layers, width 32, float32, transformers
{version}), in each form of memory: loaded, checked, trained for three steps that lower the loss,
saved, loaded again, a text compressed, asked, asked in a batch, written back, refined by one step
that lowers the loss. `make test-bases` repeats it.

| base | embeddings | key-values |
|---|---|---|
"""


def row(name: str, found: Mapping[str, str]) -> str:
    """A line of the table: what came of a base in each form of memory."""
    cells = ["yes" if what == "yes" else f"no: {what}" for what in found.values()]
    if cells[0] != "yes":
        cells[1] = "no"
    return f"| {name} | {cells[0]} | {cells[1]} |"


def main() -> None:
    """Take every base through, and print the page."""
    import transformers
    from tests.bases.architectures import NAMES, tiny
    from tests.bases.loop import SETTINGS, loop
    from tests.conftest import make_tokenizer

    from icae.model.self_check import CHECKS

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    checks = "".join(f"| {name} | {claim} |\n" for name, (claim, _) in CHECKS.items())
    lines = []
    for name in NAMES:
        print(name, file=sys.stderr)
        found = {}
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["ICAE_CACHE"] = f"{scratch}/cache"
            for form in SETTINGS:
                folder = Path(scratch, form)
                folder.mkdir()
                found[form] = loop(tiny(name), make_tokenizer(), form, folder)
        lines.append(row(name, found))
    page = HEADING.format(checks=checks, version=transformers.__version__)
    sys.stdout.write(page + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
