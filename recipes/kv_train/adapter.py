"""Weights of the run as an adapter folder of icae in bf16, and back.

python -m kv_train.adapter save WEIGHTS FOLDER    # safetensors of the run -> adapter folder
python -m kv_train.adapter load FOLDER WEIGHTS    # adapter folder -> what --from takes
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

BASE = "smollm2-135m-instruct"
WHERE = {s: f"self_attn.{s}_proj" for s in "qkvo"} | {s: f"mlp.{s}_proj" for s in ("gate", "up", "down")}
DATA = {
    "datasets": "WorkInTheDark/FairytaleQA, allenai/multi_lexsum, allenai/quac, allenai/scitldr, google/boolq, qiaojin/PubMedQA",
    "text": "English Wikipedia of July 2019 (CC BY-SA 3.0), OpenStax textbooks (CC BY 4.0), Python Enhancement Proposals (public domain), "
    "Microsoft C++ documentation (CC BY 4.0), US speeches (public domain)",
    "questions": "FairytaleQA, QuAC, BoolQ, SciTLDR, PubMedQA, QMSum, Multi-LexSum; prompts made by rule from Wikipedia, textbooks, "
    "public-domain books and Python Enhancement Proposals",
}


def name_of(key: str) -> str:
    _, layer, part, ab = key.split(".")
    return f"base_model.model.model.layers.{layer}.{WHERE[part]}.{ab}.weight"


def lead_of(named: dict[str, torch.Tensor], heads: int = 3) -> torch.Tensor | None:
    """The learned slots before the memory, [P, Y, 2, H, W]; the run holds keys and values [Y * H * P, W]."""
    if "tokens.prefix_keys" not in named:
        return None
    layers = 1 + max(int(k.split(".")[1]) for k in named if k.startswith("layers."))
    both = [named[f"tokens.prefix_{k}"] for k in ("keys", "values")]
    return torch.stack([t.view(layers, heads, -1, t.shape[1]) for t in both]).permute(3, 1, 0, 2, 4)


def save(weights: Path, folder: Path) -> None:
    from icae.config import ModelConfig
    from icae.model.adapter import save_adapter
    from icae.model.adapter_files import AdapterInfo
    from icae.model.base import base_hash, load_decoder, load_tokenizer
    from icae.model.base_files import tokenizer_hash
    from icae.model.base import computation_hash
    from icae.model.key_values import KeyValueModel

    named = {k: v.float() for k, v in load_file(weights).items()}
    t = {k.removeprefix("tokens."): v for k, v in named.items() if k.startswith("tokens.")}
    rank, tokens = named["layers.0.q.lora_A"].shape[0], t["front"].shape[0]
    lead = lead_of(named)
    config = ModelConfig(
        memory="key-values", lead_slots=0 if lead is None else len(lead), framing="between", objective_tokens=tokens, lora_targets="all-linear",
        lora_rank=rank, lora_alpha=float(rank), span_length=128,
    )
    decoder = load_decoder(BASE, dtype=torch.bfloat16, device=torch.device("cpu"))
    model = KeyValueModel(decoder, config)
    mine = {n.removeprefix("lora.").replace(".default", ""): p for n, p in model.trainable().items() if n.startswith("lora.")}
    with torch.no_grad():
        for p in mine.values():
            p.zero_()  # of the last layer only keys and values are read
        for key, value in named.items():
            if key.startswith("layers."):
                mine[name_of(key)].copy_(value)
        model.tokens.memory_ND.copy_(t["memory"].reshape(1, -1))
        if lead is not None:
            model.lead_PY2HW.copy_(lead)
        sides = ("ae_front", "ae_back", "front", "lm_back", "front", "back")
        model.tokens.objective_ND.copy_(torch.cat([t[side] for side in sides]))
    beside = weights.with_name("adapter.json")
    record = json.loads(beside.read_text()) if beside.exists() else {}
    info = AdapterInfo(
        name="smollm2-135m-kv", base_model=BASE, base_hash=base_hash(BASE, decoder), base_settings=computation_hash(decoder.config),
        tokenizer_hash=tokenizer_hash(load_tokenizer(BASE)), model=config, ratios=(2.0, 4.0, 8.0, 16.0), data=DATA,
        metrics={k: float(record[k]) for k in ("step", "context_tokens", "questions") if k in record},
    )
    save_adapter(model, info, folder)
    for file in (folder / "lora/adapter_model.safetensors", folder / "icae.safetensors"):
        save_file({k: v.to(torch.bfloat16).contiguous() for k, v in load_file(file).items()}, file)
        file.chmod(0o644)
    settings = folder / "lora/adapter_config.json"
    lora = json.loads(settings.read_text()) | {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct"}
    lora["target_modules"] = sorted(lora["target_modules"])
    settings.write_text(json.dumps(lora, indent=2) + "\n")


def load(folder: Path, weights: Path) -> None:
    lora = load_file(folder / "lora/adapter_model.safetensors")
    own = load_file(folder / "icae.safetensors")
    part = {v: k for k, v in WHERE.items()}
    named = {}
    last = max(int(k.split(".")[4]) for k in lora)
    for key, value in lora.items():
        _, _, _, _, layer, block, proj, ab, _ = key.split(".")
        short = part[f"{block}.{proj}"]
        if int(layer) < last or short in "kv":
            named[f"layers.{layer}.{short}.{ab}"] = value.float()
    rows = own["tokens.objective_ND"].float().chunk(6)
    for side, value in zip(("ae_front", "ae_back", "front", "lm_back", "", "back"), rows, strict=True):
        if side:
            named[f"tokens.{side}"] = value.contiguous()
    if "lead_PY2HW" in own:
        keys, values = own["lead_PY2HW"].float().permute(2, 1, 3, 0, 4)
        named |= {f"tokens.prefix_{k}": t.reshape(-1, t.shape[-1]).contiguous() for k, t in (("keys", keys), ("values", values))}
    named["tokens.memory"] = own["tokens.memory_ND"].float().reshape(1, -1)
    save_file(named, weights)


if __name__ == "__main__":
    {"save": save, "load": load}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
