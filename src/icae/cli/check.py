"""`icae check`: whether memories of a base model would be right, tried on a few token ids."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.options import Device, Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from icae.model.self_check import Finding


@command
def check(
    *,
    base: Annotated[
        str, Argument(metavar="[BASE]", help="Base model: a name, a hub id or a folder.")
    ] = "smollm2-135m-instruct",
    full: bool = False,
    device: Device = None,
    dtype: Dtype = None,
) -> Outcome:
    """Try whether memories of a base model would be right. Exits with 1 if they would not.

    A base is tried so when it is first loaded; what was found is kept by its weights, settings
    and precision. Says, too, which forms of memory it has and what its key-value cache takes.

    Args:
        full: Read all weights for their hash, and try the base, whatever is kept.
    """
    from icae.decode.devices import pick_device, pick_dtype
    from icae.model.base import base_hash, load_decoder
    from icae.model.self_check import kept_check

    with console.status("Loading the base model"):
        place = pick_device(device)
        decoder = load_decoder(base, dtype=pick_dtype(dtype, place), device=place)
    with console.status("Trying it"):
        weights = base_hash(base, decoder, anew=full)
        found = kept_check(decoder, weights, anew=full)
        payload = {"base": base, "weights": weights, **_found(decoder, found)}
    return Outcome(
        payload=payload, show=lambda: _show(payload, found), exit_code=not payload["sound"]
    )


def _found(decoder: PreTrainedModel, found: list[Finding]) -> dict[str, Any]:
    """What a base is, and which memories it can have."""
    from icae.errors import BaseModelError
    from icae.model.base import computation_hash
    from icae.model.cache_size import CacheSize
    from icae.model.rotary import key_turns, steady_positions

    refused = None
    try:
        key_turns(decoder)
    except BaseModelError as error:
        refused = error.got
    sound = all(finding.holds for finding in found)
    return {
        "architecture": type(decoder).__name__,
        "settings": computation_hash(decoder.config),
        "attention": decoder.config._attn_implementation,
        "dtype": str(decoder.dtype).removeprefix("torch."),
        "positions": steady_positions(decoder.config),
        "kv_bytes_1000": CacheSize.of(decoder).of_places(1000) if sound else None,
        "key_values_refused": refused,
        "sound": sound,
        "checks": [asdict(f) | {"holds": f.holds} for f in found],
    }


def _show(payload: dict[str, Any], found: list[Finding]) -> None:
    for one in found:
        off = f"{one.amount:.2g}" if math.isfinite(one.amount) else "-"
        holds, what = "holds" if one.holds else "FAILS", one.error or one.claim
        console.write_text(f"{one.check:<11} {holds}  off by {off:>8} of {one.bound:g}  {what}\n")
    console.write_text("\n")
    kv, refused = payload["kv_bytes_1000"], payload["key_values_refused"]
    console.print_figures(
        {
            "base": f"{payload['base']} ({payload['architecture']}, {payload['dtype']})",
            "weights": payload["weights"],
            "settings": payload["settings"],
            "attention": payload["attention"],
            "positions": f"{payload['positions']:,}",
            "key-value cache of 1,000 places": "-" if kv is None else console.size_text(kv),
            "memories as embeddings": "yes" if payload["sound"] else "no",
            "memories as key-values": "yes" if payload["sound"] and not refused else "no",
        }
        | ({"reason": refused} if refused else {})
    )
