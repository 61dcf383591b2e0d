"""Write weights as bf16 safetensors with their settings beside: python -m kv_train.export STATE OUT [raw].

The running average, or with ``raw`` the weights themselves: a rate that has decayed leaves little to average.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    state, out, raw = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), sys.argv[3:] == ["raw"]
    out.mkdir(parents=True, exist_ok=True)
    named = {k: v.to(torch.bfloat16).contiguous() for k, v in load_file(state / ("weights.safetensors" if raw else "ema.safetensors")).items()}
    save_file(named, out / "adapter.safetensors.tmp")
    (out / "adapter.safetensors.tmp").replace(out / "adapter.safetensors")
    record = json.loads((state / "state.json").read_text())
    options = record["options"]
    data = (out / "adapter.safetensors").read_bytes()
    settings = {
        "base": "smollm2-135m-instruct",
        "memory": "key-values",
        "lora_rank": options["rank"],
        "lora_alpha": options["rank"],
        "lora_targets": "all-linear, rows of memory tokens alone; the last layer k and v only",
        "memory_token": "learned vector + mean input embedding of its chunk, position = centre of its chunk",
        "prefix": options.get("prefix", 0),
        "tokens": {"front": options["tokens"], "back": options["tokens"], "ae_front": options["tokens"], "ae_back": options["tokens"], "lm_back": options["tokens"]},
        "placement": {
            "contiguous": "front, prefix, memory, rows behind, from 0 on; keys stored as if at position 0",
            "autoencoding": "front 0..n-1, memory at 2n + document place, back n + s.., text token t at 2n + t",
        },
        "span_lengths": [32, 128, 512],
        "ratios": [2, 4, 8, 16],
        "weights": "those of the last update, at a tenth of the rate" if raw else "exponential average, decay %g" % options["ema"],
        "step": record["step"],
        "context_tokens": record["seen"],
        "questions": record["asked_count"],
        "seconds": round(record["seconds"]),
        "parameters": sum(v.numel() for v in named.values()),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (out / "adapter.json").write_text(json.dumps(settings, indent=1) + "\n")
    print(json.dumps(settings, indent=1))


if __name__ == "__main__":
    main()
