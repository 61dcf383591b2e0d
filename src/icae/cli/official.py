"""`icae import official` and `icae export official`: weights of the public ICAE code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.errors import AdapterError, InputError

if TYPE_CHECKING:
    from icae.model.official import OfficialForm

SAMPLE = (
    "The library of Alexandria was one of the largest libraries of the ancient world. It was "
    "dedicated to the Muses, the nine goddesses of the arts, and held many thousand scrolls."
)
"""What an imported adapter is tried on."""


@command
def import_official(
    *,
    file: Annotated[Path, Argument(metavar="FILE")],
    base: Annotated[str, Option("--base", metavar="MODEL")],
    output: Annotated[Path, Option("--output", "-o", metavar="DIR")],
    alpha: Annotated[float, Option(metavar="X")] = 32.0,
    segment: Annotated[int, Option(min=1, metavar="N")] = 512,
    generation: Annotated[Literal["1", "2"], Option()] = "2",
    name: Annotated[str | None, Option(metavar="NAME", show_default="that of the file")] = None,
) -> Outcome:
    """Make an adapter of weights that the public ICAE code trained.

    Every tensor of the file is used, or the file is refused. At the end the adapter is loaded,
    and compresses a few sentences.

    Args:
        file: The published file: safetensors, or a pickle of tensors.
        base: The base model that it was trained on.
        output: Folder of the adapter.
        alpha: Numerator of the LoRA's scale; the file does not say it.
        segment: Most tokens of a span.
        generation: Of the public code: 2 is icae_v2 (Mistral), 1 the first (Llama).
    """
    if output.exists():
        raise InputError(f"{output} is there already.", fix="Give another folder with -o.")
    from icae.model.official import OfficialForm

    form = OfficialForm(generation=1 if generation == "1" else 2, alpha=alpha, segment=segment)
    payload = _imported(file, base, output, form, name or file.stem)
    return Outcome(
        payload=payload,
        show=lambda: console.print_figures({key: str(value) for key, value in payload.items()}),
    )


def _imported(
    file: Path, base: str, output: Path, form: OfficialForm, name: str
) -> dict[str, object]:
    """Write the adapter, and say what it makes of a sample, which is what the weights make."""
    import numpy as np
    import torch

    from icae.engine import load
    from icae.model.adapter import save_adapter
    from icae.model.adapter_files import AdapterInfo
    from icae.model.base import base_hash, load_decoder, load_tokenizer
    from icae.model.base_files import tokenizer_hash
    from icae.model.official import from_official, read_official

    tensors = read_official(file)
    decoder = load_decoder(base, dtype=torch.float32, device="cpu")
    tokenizer = load_tokenizer(base)
    model = from_official(tensors, decoder, tokenizer, form)
    info = AdapterInfo(
        name=name,
        base_model=base,
        base_hash=base_hash(base, decoder),
        tokenizer_hash=tokenizer_hash(tokenizer),
        model=model.config,
        ratios=(model.config.own_ratio or 1.0,),
        data={"origin": f"weights of the public ICAE code, {file.name}"},
    )
    save_adapter(model, info, output)
    loaded = load(output, base=base, device="cpu", dtype="float32")
    memory = loaded.compress(SAMPLE)
    with torch.no_grad():
        (expected,) = model.encode([loaded.compressor.tokenize(SAMPLE).ids], [1.0])
    if not np.array_equal(expected.slots_KD.float().numpy(), memory.slots):
        raise AdapterError("The adapter that was written gives other slots than the file.")
    return {
        "adapter": str(output),
        "tensors": len(tensors),
        "tokens": memory.tokens,
        "slots": memory.slot_count,
        "fidelity": memory.fidelity,
        "slots_rms": float(np.sqrt(np.mean(memory.slots**2))),
    }


@command
def export_official(
    *,
    adapter: Annotated[Path, Argument(metavar="ADAPTER")],
    output: Annotated[Path, Option("--output", "-o", metavar="FILE")],
    base: Annotated[str | None, Option("--base", metavar="MODEL", show_default=False)] = None,
) -> Outcome:
    """Write an adapter with the settings of the public ICAE code in its form.

    Args:
        adapter: Folder of the adapter.
        output: The safetensors file to write.
        base: Its base model; by default the one that it names.
    """
    from icae.engine import load
    from icae.model.icae import IcaeModel
    from icae.model.official import to_official

    if output.suffix != ".safetensors":
        raise InputError(
            "The file is no safetensors file.", got=str(output), expected="a name in .safetensors"
        )
    loaded = load(adapter, base=base, device="cpu", dtype="float32")
    model = loaded.runtime.model
    if not isinstance(model, IcaeModel):
        raise AdapterError(
            "The public ICAE code cannot read this adapter.",
            got="model.memory: key-values",
            expected="model.memory: embeddings",
        )
    to_official(model, loaded.tokenizer, output)
    return Outcome(payload={"file": str(output)}, show=lambda: console.results().print(str(output)))
