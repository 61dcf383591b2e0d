"""The folder in which cases run: texts, recipes, a tiny random base and its adapter."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BASE = HERE / "base"
ADAPTER = HERE / "adapter"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _decoder(seed: int) -> Any:
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=288,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(config).to(torch.float32).eval()


def _train(model: Any, tokenizer: Any, *, steps: int) -> None:
    """Teach a model the texts a little, so that what it puts out depends on what it reads."""
    import torch

    texts = [path.read_text() for path in sorted((HERE / "inputs").rglob("*.txt"))]
    ids = torch.tensor(tokenizer("\n".join(texts))["input_ids"])
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(steps):
        starts = torch.randint(len(ids) - 96, (8,), generator=generator)
        batch = torch.stack([ids[start : start + 96] for start in starts])
        batch[:, 48:] = torch.where(starts[:, None] % 2 == 0, batch[:, :48], batch[:, 48:])
        optimizer.zero_grad()
        model(batch, labels=batch).loss.backward()
        optimizer.step()


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "a"), ("e", "r")]
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + [a + b for a, b in merges]
    backend = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def keep_base() -> None:
    """Make the base that the cases use, and keep it beside them."""
    model, tokenizer = _decoder(0), _tokenizer()
    _train(model.train(), tokenizer, steps=600)
    model.eval().save_pretrained(BASE)
    tokenizer.save_pretrained(BASE)


def make_world(folder: Path) -> None:
    """Fill a new folder; the adapter is missing where none was kept yet."""
    if not BASE.is_dir():
        keep_base()
    shutil.copytree(HERE / "inputs", folder)
    shutil.copytree(BASE, folder / "base")
    _decoder(1).save_pretrained(folder / "other-base")
    _tokenizer().save_pretrained(folder / "other-base")
    if ADAPTER.is_dir():
        shutil.copytree(ADAPTER, folder / "adapter")
