"""Tiny random models of many architectures: what `transformers` builds, at a width of 32.

The weights are large, as in `tests.conftest`, so that a wrong mask or position is seen.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 288,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "rope_theta": 10_000.0}
LLAMA3 |= {"original_max_position_embeddings": 128}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONGROPE = {"rope_type": "longrope", "rope_theta": 10_000.0}
LONGROPE |= {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "factor": 8.0}
LONGROPE |= {"original_max_position_embeddings": 64}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4}
LATENT |= {"v_head_dim": 8, "head_dim": 4, "num_key_value_heads": 4, "first_k_dense_replace": 2}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4, "mamba_n_groups": 1}
MAMBA |= {"mamba_d_ssm": 64, "mamba_expand": 2, "mamba_chunk_size": 8}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
EXPERTS |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
GPT2 = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 512}

OTHER: dict[str, dict[str, Any]] = {
    "Gemma2": {"query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0, "sliding_window": 128},
    "Granite": {"logits_scaling": 4.0, "embedding_multiplier": 6.0, "residual_multiplier": 0.5},
    "Cohere": {"logit_scale": 0.25},
    "Cohere2": {"logit_scale": 0.25, "sliding_window": 128},
    "Phi3": {"rope_parameters": LONGROPE, "original_max_position_embeddings": 64},
    "FalconH1": MAMBA | {"lm_head_multiplier": 0.5, "embedding_multiplier": 3.0},
    "Bamba": MAMBA | {"attn_layer_indices": [1]},
    "HyperCLOVAX": {"logits_scaling": 4.0, "embedding_multiplier": 6.0},
    "GptOss": EXPERTS | {"sliding_window": 128},
    "DeepseekV2": LATENT,
    "DeepseekV3": LATENT | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1},
    "Lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48},
    "Lfm2Moe": EXPERTS
    | {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1, "use_expert_bias": False}
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
    "Persimmon": {"num_key_value_heads": ...},
    "GPTNeoX": {"num_key_value_heads": ...},
    "GPTNeoXJapanese": {"num_key_value_heads": ...},
    "Cwm": {"bos_token_id": 256, "eos_token_id": 257},
    "Qwen3Next": EXPERTS
    | {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4}
    | {"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "Falcon": {
        "head_dim": ...,
        "num_key_value_heads": ...,
        "num_kv_heads": 2,
        "new_decoder_architecture": True,
    },
    "GraniteMoeHybrid": MAMBA | {"layer_types": ["mamba", "attention"]} | EXPERTS,
    "Jamba": EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
    "Gemma3nText": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": 288}
    | {"hidden_size_per_layer_input": 8, "laurel_rank": 4}
    | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 128},
    "MiniCPM3": LATENT | {"num_key_value_heads": 4, "head_dim": ...},
    "MiniMax": EXPERTS | {"layer_types": ["linear_attention", "full_attention"]},
    "Qwen2Moe": EXPERTS,
    "Qwen3Moe": EXPERTS,
    "Glm4Moe": EXPERTS
    | {"n_routed_experts": 4, "first_k_dense_replace": 1, "n_group": 1}
    | {"topk_group": 1, "n_shared_experts": 1},
    "Dots1": EXPERTS
    | {"n_routed_experts": 4, "first_k_dense_replace": 1, "n_group": 1}
    | {"topk_group": 1, "n_shared_experts": 1},
    "MiniMaxM2": EXPERTS,
    "FlexOlmo": EXPERTS,
    "Olmoe": EXPERTS,
    "Mixtral": EXPERTS,
    "Phimoe": EXPERTS,
    "Ernie4_5_Moe": EXPERTS | {"moe_num_experts": 4, "moe_k": 2},
    "JetMoe": EXPERTS | {"kv_channels": 8, "num_key_value_heads": 2, "num_attention_heads": ...},
    "HunYuanMoEV1": EXPERTS | {"moe_topk": 2},
    "Llama4Text": EXPERTS | {"intermediate_size_mlp": 48, "moe_layers": [1]},
    "GPTJ": GPT2 | {"rotary_dim": 4},
    "CodeGen": GPT2 | {"rotary_dim": 4},
    "GPTBigCode": GPT2,
    "XGLM": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    "GPTNeo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
    "Mamba2": {"state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    "Youtu": LATENT,
    "Bloom": GPT2,
    "GPT2": GPT2,
    "Mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "Mamba": {"state_size": 4},
    "Rwkv": {"attention_hidden_size": 32},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "Llama31": {"rope_parameters": LLAMA3},
    "Mistral": {"sliding_window": 128},
}
"""What an architecture needs beside or in place of `SIZES`; its name with digits for a variant."""

VARIANTS = {"Llama31": "Llama"}
"""Name of a row -> the prefix of its configuration's class, where that is another."""


NEEDED = (
    "Gemma2",
    "Granite",
    "Cohere2",
    "Phi3",
    "FalconH1",
    "Qwen3",
    "Llama",
    "Llama31",
    "Mistral",
    "Olmo2",
    "SmolLM3",
    "GptOss",
    "DeepseekV2",
    "DeepseekV3",
    "Lfm2",
    "Bloom",
    "GPT2",
    "Mamba",
)
"""Bases that every run of the tests takes through."""

NAMES = (
    *NEEDED,
    "Ministral",
    "Ministral3",
    "Qwen2",
    "Qwen2Moe",
    "Qwen3Moe",
    "Qwen3Next",
    "Gemma",
    "Gemma3Text",
    "VaultGemma",
    "GraniteMoe",
    "GraniteMoeShared",
    "GraniteMoeHybrid",
    "Cohere",
    "Phi",
    "Phimoe",
    "Falcon",
    "Olmo",
    "Olmo3",
    "Olmoe",
    "FlexOlmo",
    "Lfm2Moe",
    "Glm",
    "Glm4",
    "Glm4Moe",
    "StableLm",
    "Starcoder2",
    "Persimmon",
    "Nemotron",
    "Mixtral",
    "MiniMaxM2",
    "MiniCPM3",
    "HyperCLOVAX",
    "HunYuanDenseV1",
    "HunYuanMoEV1",
    "Helium",
    "Exaone4",
    "Ernie4_5",
    "Ernie4_5_Moe",
    "Dots1",
    "DiffLlama",
    "Doge",
    "Arcee",
    "Apertus",
    "Bamba",
    "Jamba",
    "GPTNeoX",
    "GPTNeoXJapanese",
    "GPTJ",
    "CodeGen",
    "SeedOss",
    "Jais2",
    "NanoChat",
    "Llama4Text",
    "Youtu",
    "SolarOpen",
    "Cwm",
    "BitNet",
    "Gemma3nText",
    "Gemma4Text",
    "MiniMax",
    "JetMoe",
    "Mpt",
    "OPT",
    "GPTBigCode",
    "XGLM",
    "BioGpt",
    "Mamba2",
    "Rwkv",
    "RecurrentGemma",
    "FalconMamba",
)
"""Every base of docs/bases.md."""


def tiny_config(name: str, **settings: Any) -> Any:
    """The settings of a tiny model."""
    wanted = SIZES | OTHER.get(name, {}) | settings
    wanted = {key: value for key, value in wanted.items() if value is not ...}
    return getattr(transformers, f"{VARIANTS.get(name, name)}Config")(**wanted)


def tiny(name: str, **settings: Any) -> Any:
    """A tiny random model, float32, in eval mode."""
    config = tiny_config(name, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                if (weight == weight.flatten()[0]).all():  # zeros and ones hide what they scale
                    weight += 0.1 * torch.randn_like(weight)
    return model.to(torch.float32).eval()
