"""Base weights as llama.cpp reads them: a GGUF file in the cache, written once.

The file holds the very weights of the Hugging Face folder, rounded to bfloat16 (or kept in
float32), and no tokenizer: prompts are tokenized by the base model's own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from icae.config.types import FloatArray
from icae.decode.checkpoint import BaseFolder, CheckpointTensor
from icae.errors import BaseModelError
from icae.model.base_files import cache_root, make_cache_folder

GgufDtype = Literal["bfloat16", "float32"]

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""`model_type` of transformers -> architecture of llama.cpp."""

log = logging.getLogger(__name__)


def gguf_path(base_hash: str, config: Mapping[str, Any], dtype: GgufDtype) -> Path:
    """Where the GGUF file of weights with this hash and these settings lies, written or not."""
    settings = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return cache_root() / "gguf" / f"{base_hash[:32]}-{settings[:12]}-{dtype}.gguf"


def order_path(gguf: Path) -> Path:
    """Where it lies how llama.cpp keeps the keys and values of a GGUF file, written or not."""
    return gguf.with_suffix(".order.json")


def ensure_gguf(folder: BaseFolder, base_hash: str, dtype: GgufDtype) -> Path:
    """Write the GGUF file of a base model with this hash unless it is in the cache.

    Safe for several processes: the file appears whole, under a lock.

    Raises:
        BaseModelError: As for `write_gguf`.
    """
    from filelock import FileLock

    path = gguf_path(base_hash, folder.config, dtype)
    if path.exists():
        return path
    make_cache_folder(path.parent)
    with FileLock(f"{path}.lock"):
        if path.exists():
            return path
        log.info("writing %s (once)", path)
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        os.close(descriptor)
        try:
            write_gguf(folder, Path(scratch), dtype)
            Path(scratch).replace(path)
        finally:
            Path(scratch).unlink(missing_ok=True)
    return path


def write_gguf(folder: BaseFolder, path: Path, dtype: GgufDtype) -> None:
    """Write the weights of a base model as a GGUF file, its vectors in float32.

    Raises:
        BaseModelError: If llama.cpp does not know the architecture or a setting of it.
    """
    import gguf

    config = folder.config
    architecture = _architecture(config)
    writer = gguf.GGUFWriter(str(path), architecture)
    rotated = _add_settings(writer, config)
    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH[architecture.upper()], config["num_hidden_layers"]
    )
    reads = []
    for name, tensor in folder.tensors.items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise _unknown("a tensor that llama.cpp does not know", name)
        kind, raw, read = _stored(tensor, dtype)
        size = math.prod(tensor.shape) * kind.itemsize
        # Declared by their shapes, read one by one below: the model is never held whole.
        writer.add_tensor_info(target, tensor.shape, kind, size, raw_dtype=raw)
        reads.append((name, read))
    if rotated is not None:
        writer.add_tensor_info("rope_freqs.weight", rotated.shape, rotated.dtype, rotated.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, read in reads:
        values = read()
        if architecture == "llama":
            values = _interleaved(values, name, config)
        writer.write_tensor_data(np.ascontiguousarray(values))
    if rotated is not None:
        writer.write_tensor_data(rotated)
    writer.close()


def _stored(
    tensor: CheckpointTensor, dtype: GgufDtype
) -> tuple[np.dtype[Any], Any, Callable[[], Any]]:
    """How a tensor is written: matrices in the dtype asked for, vectors in float32.

    Returns:
        Its NumPy and GGUF dtypes, and what reads its values.
    """
    from gguf import GGMLQuantizationType as Kind

    if dtype == "bfloat16" and len(tensor.shape) == 2:
        return np.dtype(np.uint16), Kind.BF16, tensor.bfloat16_bits
    return np.dtype(np.float32), Kind.F32, tensor.float32


def _architecture(config: Mapping[str, Any]) -> str:
    """The architecture of llama.cpp for a base model."""
    model_type = str(config.get("model_type"))
    if model_type not in ARCHITECTURES:
        raise _unknown("a model type", model_type)
    window = config.get("sliding_window")
    slides = config.get("use_sliding_window", model_type == "mistral")
    if slides and window is not None and window < config["max_position_embeddings"]:
        raise _unknown("a sliding window", f"{window} tokens")
    if config.get("hidden_act", "silu") != "silu":
        raise _unknown("an activation", str(config["hidden_act"]))
    return ARCHITECTURES[model_type]


def _unknown(what: str, got: str) -> BaseModelError:
    return BaseModelError(
        f"The base model has {what} that is not written for llama.cpp here.",
        got=got,
        expected=f"one of {', '.join(ARCHITECTURES)} with full attention",
        fix="Use --runtime torch.",
    )


def _add_settings(writer: Any, config: Mapping[str, Any]) -> FloatArray | None:
    """Write the settings; the factors of the rotary frequencies, if they are changed."""
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {
        "rope_theta": config.get("rope_theta", 10_000.0),
        **(config.get("rope_scaling") or {}),
    }
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise _unknown("a rotary scaling", str(kind))
    return _llama3_factors(rope, width)


def _llama3_factors(rope: Mapping[str, Any], width: int) -> FloatArray:
    """Divisor of each rotary frequency, [width / 2], as Llama 3.1 scales them."""
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    trained = rope["original_max_position_embeddings"]
    factors = []
    for i in range(width // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * i / width)
        smooth = min(max((trained / wavelength - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.asarray(factors, dtype=np.float32)


def _interleaved(values: Any, name: str, config: Mapping[str, Any]) -> Any:
    """Query and key rows in the order in which llama.cpp rotates pairs of them."""
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config.get("num_key_value_heads") or config["num_attention_heads"],
    }
    found = [count for part, count in heads.items() if f".{part}." in name]
    if not found:
        return values
    halves = values.reshape(found[0], 2, values.shape[0] // found[0] // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
