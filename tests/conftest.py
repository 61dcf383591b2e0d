"""Tiny random models and a tiny tokenizer, built in code: nothing is downloaded.

The weights are large (standard deviation 0.3) so that positions and attention matter:
with the usual 0.02 every token would look the same and a wrong mask would go unseen.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VOCABULARY = 288
HIDDEN = 32
FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "mistral": "Mistral", "gpt-neox": "GPTNeoX"}

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_decoder(family: str = "llama", *, seed: int = 0) -> Any:
    """A random causal LM of 2 layers with rotary positions, float32, in eval mode."""
    import torch
    import transformers

    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if family != "gpt-neox":
        settings |= {"num_key_value_heads": 2, "tie_word_embeddings": family == "llama"}
    config = getattr(transformers, f"{FAMILIES[family]}Config")(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{FAMILIES[family]}ForCausalLM")(config)
    return model.to(torch.float32).eval()


def make_tokenizer(*, chat_template: str | None = CHAT_TEMPLATE) -> Any:
    """A byte-level BPE tokenizer: 256 bytes, a few merges, and an end token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "a"), ("e", "r")]
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + [a + b for a, b in merges]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny matrices are slower on several threads."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each supported model family in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def build_decoder() -> Callable[..., Any]:
    """``build_decoder(family="llama", seed=0)``: a fresh tiny causal LM."""
    return make_decoder


@pytest.fixture(scope="session")
def build_tokenizer() -> Callable[..., Any]:
    """``build_tokenizer(chat_template=...)``: a fresh tiny tokenizer."""
    return make_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The tiny tokenizer, with a chat template."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def as_trained() -> Callable[[Any], Any]:
    """``as_trained(model)``: every trainable weight moved away from its start.

    Only then the LoRA, whose update starts at zero, has an effect.
    """

    def move(model: Any) -> Any:
        import torch

        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.trainable().values():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += 0.1 * noise.to(parameter.dtype)
        return model

    return move


@pytest.fixture(scope="session")
def build_model(as_trained: Callable[[Any], Any]) -> Callable[..., Any]:
    """``build_model(family, decoder=None, method="memory", trained=True, **config)``: tiny."""

    def build(
        family: str = "llama",
        *,
        decoder: Any = None,
        method: Any = "memory",
        trained: bool = True,
        **settings: Any,
    ) -> Any:
        from icae.config import ModelConfig
        from icae.model.adapter import model_class

        config = ModelConfig(
            **{"span_length": 16, "lora_rank": 4, "lora_alpha": 8.0, "max_slots": 16, **settings}
        )
        decoder = make_decoder(family) if decoder is None else decoder
        model = model_class(config, method)(decoder, config)
        return (as_trained(model) if trained else model).eval()

    return build


@pytest.fixture
def model(build_model: Callable[..., Any]) -> Any:
    """A tiny Llama with an adapter, as if trained."""
    return build_model()


@pytest.fixture(scope="session")
def random_ids() -> Callable[..., Any]:
    """``random_ids(length, seed=0)``: int64 token ids."""

    def draw(length: int, seed: int = 0) -> Any:
        return np.random.default_rng([seed, length]).integers(0, 256, length)

    return draw


@pytest.fixture
def train() -> Callable[..., list[float]]:
    """``train(model, samples, steps=3)``: a few AdamW steps; the loss of each."""

    def run(model: Any, samples: Sequence[Any], steps: int = 3) -> list[float]:
        import torch

        optimizer = torch.optim.AdamW(model.trainable().values(), lr=1e-2)
        losses = []
        model.train()
        for _ in range(steps):
            scores = model(samples)
            loss = torch.stack([s.loss_sum for s in scores]).sum() / sum(s.labels for s in scores)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        model.eval()
        return losses

    return run


@pytest.fixture(scope="session")
def info_for() -> Callable[..., Any]:
    """``info_for(model, tokenizer, name=...)``: what `icae.json` would record."""

    def describe(model: Any, tokenizer: Any, *, name: str = "tiny", base: str = "tiny-base") -> Any:
        from icae.model.adapter_files import AdapterInfo
        from icae.model.base import weight_hash
        from icae.model.base_files import tokenizer_hash

        return AdapterInfo(
            name=name,
            base_model=base,
            base_hash=weight_hash(model.decoder),
            tokenizer_hash=tokenizer_hash(tokenizer),
            model=model.config,
            ratios=(2.0, 4.0),
            recipe={"description": "A tiny run.", "optim": {"steps": 3}},
            data={"corpus": "9 tokens"},
            metrics={"ae_loss": 1.25},
        )

    return describe


@pytest.fixture
def saved_adapter(tmp_path: Path, model: Any, tokenizer: Any, info_for: Callable[..., Any]) -> Path:
    """The folder of the adapter of `model`."""
    from icae.model.adapter import save_adapter

    return save_adapter(model, info_for(model, tokenizer), tmp_path / "adapter")


@pytest.fixture(scope="session")
def build_engine(
    build_model: Callable[..., Any], tokenizer: Any, info_for: Callable[..., Any]
) -> Callable[..., Any]:
    """``build_engine(adapter_hash=..., tokenizer=..., **config)``: a tiny engine."""

    def build(
        *, adapter_hash: str = "a" * 64, own_tokenizer: Any = tokenizer, **config: Any
    ) -> Any:
        from icae.engine import Engine
        from icae.memory import Provenance
        from icae.memory.provenance import KEY_VALUE_DTYPE
        from icae.model.decoder import key_value_shape

        model = build_model(**config)
        info = info_for(model, own_tokenizer)
        in_pairs = model.config.memory == "key-values"
        provenance = Provenance(
            base_model=info.base_model,
            base_hash=info.base_hash,
            adapter=info.name,
            adapter_hash=adapter_hash,
            tokenizer_hash=info.tokenizer_hash,
            layout=model.config.layout,
            hidden_size=32,
            key_values=key_value_shape(model.decoder) if in_pairs else None,
            slot_dtype=KEY_VALUE_DTYPE if in_pairs else "float32",
        )
        return Engine(model, info, own_tokenizer, provenance)

    return build


@pytest.fixture
def engine(build_engine: Callable[..., Any]) -> Any:
    return build_engine()


@pytest.fixture(scope="session")
def benchmark_script() -> Callable[[str], Any]:
    """Load a script of benchmarks/ by its name."""

    def load(name: str) -> Any:
        path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load
