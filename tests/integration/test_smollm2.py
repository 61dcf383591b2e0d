"""SmolLM2-135M with the shipped adapter, as a user gets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icae import engine as api
from icae.compression.adaptive import FidelityPolicy
from icae.compression.refinement import RefineConfig
from icae.memory import Memory, memory_bytes
from icae.model.adapter_files import ADAPTERS, DEFAULT_ADAPTER
from icae.model.base import load_tokenizer, weight_hash
from icae.model.base_files import DEFAULT_BASE, tokenizer_hash
from icae.model.prompts import render_prompt, tokenize
from icae.model.sizes import ModelSizes
from icae.opening import config_file
from icae.serve.plan import Workload, plan

pytestmark = pytest.mark.real_model

TEXT = (
    "The lighthouse at Cape Wickham was built in 1861 from local granite. It is 48 metres tall, "
    "the tallest in Australia, and its light can be seen from 24 nautical miles away. The first "
    "keeper was a man named Charles Baring, who lived there with his wife and three children. "
    "Supplies came by boat twice a year, and in a bad winter not at all."
)
FIGURES = (
    "The lighthouse at Cape Wickham was built in 1861 from local granite. It is 48 metres tall, "
    "and its light can be seen from far away.\n"
    "9d7c3b52-6f04-4a1e-8c2d-e1b07a95f3c8 | 48213.07 | 7316.55"
)
GIB = 1024**3

COMPRESS_AND_ASK = """
import json, resource, sys, icae
from pathlib import Path

def peak():
    # A child's ru_maxrss starts at its parent's; Linux also counts from exec on, in VmHWM.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(l for l in status.read_text().splitlines() if l.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

engine = icae.load(sys.argv[1], device="cpu", dtype="bfloat16")
start = peak()
memory = engine.compress(Path(sys.argv[2]).read_text(encoding="utf-8"), ratio=4)
engine.ask(memory, "What does the text propose?", max_new_tokens=16)
print(json.dumps({"start": start, "peak": peak(), "slots": memory.slot_count}))
"""


@pytest.fixture(scope="module")
def memory(engine: api.Engine) -> Any:
    """The paragraph at 4x."""
    return engine.compress(TEXT, ratio=4, name="lighthouse.txt")


def test_a_paragraph_takes_a_quarter_of_its_tokens(engine: api.Engine, memory: Any) -> None:
    tokens = engine.count_tokens(TEXT)

    assert memory.tokens == tokens
    assert tokens / 4 <= memory.slot_count <= tokens / 4 + len(memory.spans)
    assert "".join(memory.span_source(i) for i in range(len(memory.spans))) == TEXT


@pytest.mark.parametrize(("ratio", "margin"), [(2.0, 0.1), (4.0, 0.02)])
def test_slots_beat_the_slots_of_another_span(
    engine: api.Engine, document: Path, ratio: float, margin: float
) -> None:
    """The slots themselves carry the text: chance is what the decoder guesses without them."""
    text = document.read_text(encoding="utf-8")
    memory = engine.compress(text, ratio=ratio)
    ids = tokenize(engine.tokenizer, text)
    full = [s for s in memory.spans if s.tokens == engine.config.span_length]
    payloads = [s.payload for s in full]
    pieces = [ids[s.token_start : s.token_end] for s in full]

    own = np.mean([s.fidelity for s in full])
    swapped = engine.runtime.fidelity([*payloads[1:], payloads[0]], pieces)  # type: ignore[list-item]
    foreign = np.mean([fidelity.share for fidelity in swapped])

    assert own > foreign + margin, (own, foreign)


def test_slots_have_the_scale_of_input_embeddings(engine: api.Engine, memory: Any) -> None:
    if engine.config.memory != "embeddings":
        pytest.skip("the slots of the default adapter are keys and values")
    table = engine.runtime.model.decoder.get_input_embeddings().weight.detach().numpy()
    ratio = np.sqrt((memory.slots**2).mean() / (table**2).mean())

    assert 0.2 < ratio < 5


def test_a_question_is_answered_from_the_memory(engine: api.Engine, memory: Any) -> None:
    question, config = "What is this text about?", engine.config
    answer = engine.ask(memory, question, max_new_tokens=16)

    assert answer.text
    assert answer.memory_positions == memory.slot_count < engine.count_tokens(TEXT) / 3
    around = config.lead_slots + config.front + config.objective_tokens
    prompt = len(render_prompt(engine.tokenizer, question))
    assert answer.prompt_tokens == memory.slot_count + around + prompt


def test_every_span_is_written_back_in_full_length(engine: api.Engine, memory: Any) -> None:
    made = engine.reconstruct(memory, spans=[0])

    assert len(made[0].token_ids) == memory.spans[0].tokens
    assert 0 <= float(made[0].exact_prefix or 0.0) <= 1


def test_compressing_and_asking_stays_under_a_gibibyte_and_a_half(
    document: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPRESS_AND_ASK, str(ADAPTERS / DEFAULT_ADAPTER), str(document)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])

    assert measured["slots"] > 500
    assert measured["start"] < 1.25 * GIB
    assert measured["peak"] < 1.5 * GIB


def test_lora_off_equals_the_base_logits_bit_for_bit(engine: api.Engine) -> None:
    import torch

    from icae.model.base import load_decoder

    model = engine.runtime.model
    ids = torch.as_tensor(engine.tokenizer(TEXT)["input_ids"])[None]
    with torch.no_grad():
        base = load_decoder(DEFAULT_BASE, dtype=torch.float32, device="cpu")(input_ids=ids).logits
        encoder = model.lora.get_base_model()
        assert not torch.equal(encoder(input_ids=ids).logits, base)
        assert torch.equal(model.decoder(input_ids=ids).logits, base)
        with model.lora.disable_adapter():
            assert torch.equal(encoder(input_ids=ids).logits, base)


def test_recorded_hashes_are_those_of_what_was_loaded(engine: api.Engine) -> None:
    tokenizer = load_tokenizer(DEFAULT_BASE)
    recorded = tokenizer_hash(tokenizer)
    tokenizer.name_or_path = "elsewhere"

    assert tokenizer_hash(tokenizer) == recorded == engine.info.tokenizer_hash
    assert weight_hash(engine.runtime.model.decoder) == engine.info.base_hash


def test_plan_is_what_the_paragraph_really_takes(engine: api.Engine, memory: Any) -> None:
    sizes = ModelSizes.of_file(config_file(DEFAULT_BASE), dtype="float32")
    workload = Workload(
        tokens=memory.tokens,
        model=engine.config,
        dtype="float32",
        verified=memory.fidelity is not None,
        text_bytes=0.0,
    )
    made = plan(sizes, workload)
    assert made.slots == memory.slot_count
    assert made.kv_bytes.full == engine.kv_bytes(memory.tokens)
    assert made.file_bytes == pytest.approx(len(memory_bytes(memory.without_source())), rel=0.02)


def test_a_strict_fidelity_brings_text_figures_and_identifier_back_exactly(tmp_path: Path) -> None:
    engine = api.load(device="cpu", dtype="bfloat16")
    policy = FidelityPolicy(min_fidelity=0.99, ratios=(4.0,), refine=RefineConfig(steps=24))

    engine.compress(FIGURES, policy=policy).save(tmp_path / "m.icae")
    memory = Memory.load(tmp_path / "m.icae")

    assert all(span.is_exact for span in memory.spans)
    assert any(span.kind != "tokens" for span in memory.spans), "refinement holds no span at 4x"
    assert memory.positions < 0.75 * memory.tokens
    assert "".join(made.text for made in engine.reconstruct(memory)) == FIGURES
