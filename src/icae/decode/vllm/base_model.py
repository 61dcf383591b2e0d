"""The base model of an adapter here and in a vLLM server: are they the same?

Over HTTP vLLM takes a prompt that is embeds as a whole, so tokens are embedded here, with
rows read from the base model's files.

A server tells the name of its model, not its weights. So beside the name it is tried
whether it embeds tokens as the adapter's base does: the same prompt, once as token ids and
once as embeds, has to be continued alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from icae.decode.checkpoint import BaseFolder, CheckpointTensor
from icae.decode.vllm.client import ServedModel, VllmClient, embeds_prompt
from icae.errors import BaseModelError
from icae.memory.provenance import SlotDtype

TRIED_TOKENS = 16
"""Tokens of the trial prompt, spread over the vocabulary; they come three times, so that every
model is sure how it goes on."""

TRIED_ANSWER = 4
"""Tokens of the continuation."""

EMBEDDINGS = {
    "llama": "model.embed_tokens.weight",
    "mistral": "model.embed_tokens.weight",
    "qwen2": "model.embed_tokens.weight",
    "qwen3": "model.embed_tokens.weight",
    "gpt_neox": "gpt_neox.embed_in.weight",
}
"""`model_type` of transformers -> its matrix of input embeddings, which is read as it stands.

Not every family belongs here: some scale the rows before the first layer."""


def input_embeddings(folder: BaseFolder) -> CheckpointTensor:
    """The matrix [V, D] of input embeddings of a base model, on disk.

    Raises:
        BaseModelError: If the family is not known, or the matrix is not there.
    """
    family = str(folder.config.get("model_type"))
    name = EMBEDDINGS.get(family)
    if name is None or name not in folder.tensors:
        raise BaseModelError(
            "It is not known how this base model embeds tokens.",
            got=f"{family}, without {name}" if name else family,
            expected=", ".join(EMBEDDINGS),
            fix="Use --runtime torch.",
        )
    return folder.tensors[name]


def choose_model(
    served: Sequence[ServedModel], *, wanted: str | None, bases: Sequence[str]
) -> ServedModel:
    """The model of a server that is the base of an adapter, as far as names tell.

    Args:
        served: The models of the server.
        wanted: The name that the user gave it, or None to go by the names of the base.
        bases: Names of the base: a short name, a hub id or a folder.

    Raises:
        BaseModelError: If there is none of that name.
    """
    plain = [model for model in served if not model.adapted]
    if wanted is not None:
        found = [model for model in plain if model.name == wanted]
    else:
        known = {_short(base) for base in bases}
        found = [
            model
            for model in plain
            if any(base in _short(name) for name in (model.name, model.root) for base in known)
        ]
    if not found:
        raise BaseModelError(
            "The vLLM server does not serve the base model of the adapter.",
            got=", ".join(f"{m.name} ({m.root})" if m.root else m.name for m in plain) or "none",
            expected=wanted or " or ".join(bases),
            fix="Serve the base model, without LoRA; if it is there under another name, say "
            "which: --engine-model NAME.",
        )
    return found[0]


def _short(name: str) -> str:
    """The last part of a name or path, letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", PurePath(name).name.lower())


def require_same_embeddings(
    client: VllmClient, model: str, embeddings_VD: CheckpointTensor, *, dtype: SlotDtype, salt: str
) -> None:
    """Refuse a server that embeds tokens differently, or takes no embeds.

    Args:
        client: The server.
        model: Name of the model there.
        embeddings_VD: The input embeddings of the adapter's base.
        dtype: Precision in which embeddings are sent.
        salt: Keeps the trial apart from other requests.

    Raises:
        BaseModelError: If the model is another one.
        ServiceError: If the server cannot be asked, or takes no embeds.
    """
    spread = np.linspace(0, embeddings_VD.shape[0] - 1, TRIED_TOKENS).astype(np.int64)
    ids = np.tile(spread, 3)
    prompts = (embeds_prompt(embeddings_VD.rows(ids), dtype), {"prompt": ids.tolist()})
    written = [
        list(client.write(model, prompt, limit=TRIED_ANSWER, salt=salt)) for prompt in prompts
    ]
    if written[0] != written[1]:
        raise BaseModelError(
            "The model of the vLLM server embeds tokens differently than the adapter's base.",
            got=f"{model}: the same prompt goes on with {written[0]} as embeds and with "
            f"{written[1]} as token ids",
            expected="the same continuation",
            fix="Serve the base model of the adapter, in the precision of --dtype.",
        )
