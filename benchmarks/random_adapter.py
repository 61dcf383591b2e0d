"""An adapter on a small model with random weights, for load tests of the server itself.

python benchmarks/random_adapter.py FOLDER

The model has 6 layers of width 192 and the tokenizer of SmolLM2: what it answers is noise, but
it reads and writes as many tokens as any other. The adapter is in FOLDER/adapter.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from icae.config import ModelConfig
from icae.model.adapter import save_adapter
from icae.model.adapter_files import AdapterInfo
from icae.model.base import load_tokenizer, weight_hash
from icae.model.base_files import tokenizer_hash
from icae.model.icae import IcaeModel


def main() -> None:
    folder = Path(sys.argv[1])
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=True,
    )
    decoder = LlamaForCausalLM(config).eval()
    base = folder / "base"
    decoder.save_pretrained(base)
    tokenizer.save_pretrained(base)
    model = IcaeModel(decoder, ModelConfig(span_length=32, lora_rank=4, lora_alpha=8.0))
    info = AdapterInfo(
        name="random-6x192",
        base_model=str(base),
        base_hash=weight_hash(decoder),
        tokenizer_hash=tokenizer_hash(tokenizer),
        model=model.config,
        ratios=(4.0,),
        recipe={"description": "Random weights, for load tests."},
        data={},
        metrics={},
    )
    save_adapter(model, info, folder / "adapter")


if __name__ == "__main__":
    main()
