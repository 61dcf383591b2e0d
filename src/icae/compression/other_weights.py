"""Weights that an adapter was not trained on: a text is measured in them, at once."""

from __future__ import annotations

import logging

import numpy as np

from icae.compression.compressor import Compressor
from icae.config.spans import DEFAULT_RATIO
from icae.errors import AdapterError
from icae.model.adapter_files import AdapterInfo
from icae.model.objectives import draw_probes

log = logging.getLogger(__name__)

PROBE = """\
The harbour of Tessaly was closed for eleven days in the spring of 1907. Anna Brandt, who kept \
the customs book, wrote that forty-three barges lay waiting, most of them with coal and nine \
with oranges from the south. When the ice broke on the morning of the twelfth day, the first \
ship to enter was a small ferry, the Marguerite, with the mail and a doctor named Elias Kerr.
"""
"""What is measured where weights are others than an adapter was trained on."""

LEAST_FIDELITY = 0.3
"""Fidelity of it below which other weights are refused."""

PROBES = 4
"""Places of the text at which recall is measured."""


def require_readable(compressor: Compressor, info: AdapterInfo) -> None:
    """Refuse weights in which an adapter does not hold a text; say how well it does in others.

    Args:
        compressor: The adapter on other weights than it was trained on.
        info: What it records.

    Raises:
        AdapterError: If the fidelity of a built-in text is below `LEAST_FIDELITY`.
    """
    text, runtime = compressor.tokenize(PROBE), compressor.runtime
    memory = compressor.compress(text, ratio=DEFAULT_RATIO, name="probe")
    fidelity = memory.fidelity or 0.0
    probes = draw_probes(np.random.default_rng(0), text.ids, PROBES)
    recall = float(np.mean(runtime.recall(runtime.asked(memory), probes)))
    figures = f"fidelity {fidelity:.1%}, recall {recall:.1%} of a built-in text at 4x"
    name, found = memory.provenance.base_model, memory.provenance.base_hash
    if fidelity < LEAST_FIDELITY:
        raise AdapterError(
            "The adapter was trained on another base model.",
            got=f"base {name} (weights {found[:12]}): {figures}",
            expected=f"base {info.base_model} (weights {info.base_hash[:12]}), or weights near "
            f"them: fidelity {LEAST_FIDELITY:.0%}",
            fix=f"Load {info.base_model}, or train an adapter for {name}.",
        )
    note = "%s has other weights than %s was trained on: %s. They are what memories are keyed by."
    log.warning(note, name, info.name, figures)
