"""HTTP to a vLLM server: its address, the models it serves, greedy completions token by token."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from icae.config.extras import import_extra
from icae.config.types import FloatArray
from icae.errors import (
    BaseModelError,
    ConfigError,
    IcaeError,
    InputError,
    ServiceError,
)
from icae.memory.provenance import SlotDtype

START = "python -m vllm.entrypoints.openai.api_server --model BASE --enable-prompt-embeds"
"""How a server is started; see docs/deployment.md."""

MEMORY_HEADER = "X-Icae-Memory"
"""Header with the salt: a load balancer that hashes it sends a memory to one replica."""

GREEDY = {
    "temperature": 0.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "ignore_eos": True,  # only the stop tokens asked for end an answer
    "return_token_ids": True,
}
"""Said in full: a server takes what is left out from the model's generation settings."""


@dataclass(frozen=True, kw_only=True)
class VllmAddress:
    """A stock vLLM server.

    Attributes:
        url: Its address, with or without ``/v1`` at the end.
        model: Name of the model there, or None for the one that it serves.
        api_key: Its key, or "" where it wants none. Never written anywhere.
        secret: What keeps the cache of one user apart from another's; see `VllmRuntime`.
            Never written anywhere.
        timeout_s: Longest time without a sign of the server, s.

    Raises:
        ConfigError: If the address is no URL, or the time is out of range.
    """

    url: str
    model: str | None = None
    api_key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            found = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            found = False
        if not found:
            raise ConfigError(
                "The address of the vLLM server is no URL.",
                got=self.url,
                expected="for example http://127.0.0.1:8000",
            )
        if self.timeout_s <= 0:
            raise ConfigError(
                "The time to wait for the vLLM server is out of range.",
                got=f"{self.timeout_s:g} s",
                expected="above 0",
            )

    @property
    def base_url(self) -> str:
        """The address that OpenAI clients take, ending in ``/v1``."""
        bare = self.url.rstrip("/")
        return bare if bare.endswith("/v1") else f"{bare}/v1"


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that a server has.

    Attributes:
        name: What it is asked by.
        root: Where the server has it from: a folder or a hub id.
        window: Most positions, prompt and answer together.
        adapted: Whether it is another model of the server with a LoRA.
    """

    name: str
    root: str
    window: int
    adapted: bool


def embeds_prompt(embeds_SD: FloatArray, dtype: SlotDtype) -> dict[str, Any]:
    """A prompt of input embeddings [S, D], float32, sent in a precision, as vLLM takes it."""
    import torch  # this package writes the file; it never reads one

    tensor = torch.from_numpy(embeds_SD).to(getattr(torch, dtype))
    file = io.BytesIO()
    torch.save(tensor, file)
    # A prompt beside the embeds, even an empty one, would be a second prompt.
    return {"prompt": None, "prompt_embeds": base64.b64encode(file.getvalue()).decode("ascii")}


class VllmClient:
    """Speaks with a vLLM server; for any number of threads.

    Args:
        address: Where it is.

    Raises:
        MissingDependencyError: If the openai client is not installed.
    """

    def __init__(self, address: VllmAddress) -> None:
        self.address = address
        self._openai = import_extra("openai", purpose="Asking a vLLM server", extra="vllm")
        self._client = self._openai.OpenAI(
            base_url=address.base_url, api_key=address.api_key or "none", timeout=address.timeout_s
        )

    def served(self) -> list[ServedModel]:
        """The models of the server.

        Raises:
            ServiceError: If it cannot be asked, or is no vLLM server.
        """
        with self._told():
            listed = self._client.models.list().data
        found = []
        for model in listed:
            window = getattr(model, "max_model_len", None)
            if not isinstance(window, int):
                raise ServiceError(
                    "The server there is no vLLM server.",
                    got=f"{self.address.base_url}: model {model.id} without max_model_len",
                    expected="a stock vLLM server",
                    fix=f"Start one: {START}",
                )
            found.append(
                ServedModel(
                    name=model.id,
                    root=str(getattr(model, "root", "") or ""),
                    window=window,
                    adapted=bool(getattr(model, "parent", None)),
                )
            )
        return found

    def write(
        self,
        model: str,
        prompt: dict[str, Any],
        *,
        limit: int,
        stop_ids: Collection[int] = (),
        salt: str,
        sampling: Mapping[str, object] | None = None,
    ) -> Generator[int, None, None]:
        """Decoding, as the tokens come; closing the generator ends it on the server too.

        Args:
            model: Name of the model.
            prompt: The fields with the prompt: token ids, or from `embeds_prompt`.
            limit: Most tokens to write, at least 1.
            stop_ids: Tokens that end it; one of them comes last if one did.
            salt: Requests of different salts share no cache.
            sampling: Fields that take the place of those of greedy decoding.

        Raises:
            ServiceError: If the server cannot be asked, or refuses.
            BaseModelError: If it runs another model than the embeds are for.
            InputError: If prompt and answer do not fit its context window.
        """
        own = {"stop_token_ids": list(stop_ids), "cache_salt": salt}
        with (
            self._told(),
            self._client.completions.create(
                model=model,
                prompt=prompt.get("prompt"),
                stream=True,
                max_tokens=limit,
                extra_body=GREEDY | dict(sampling or {}) | own | prompt,
                extra_headers={MEMORY_HEADER: salt},
            ) as chunks,
        ):
            ended, stopped = None, False
            for choice in (one for chunk in chunks for one in chunk.choices):
                ids, ended = self._token_ids(choice), choice.finish_reason
                stopped = stopped or ended == "stop" or any(i in stop_ids for i in ids)
                yield from (i for i in ids if i not in stop_ids)
            if ended not in ("stop", "length"):
                raise ServiceError(
                    "The vLLM server broke an answer off.",
                    got=f"{self.address.base_url}: finish_reason {ended}, not stop or length",
                    fix="Ask again; its log says whether it was told to end.",
                )
            if stopped:
                yield from list(stop_ids)[:1]

    def _token_ids(self, choice: Any) -> list[int]:
        token_ids = getattr(choice, "token_ids", None)
        if token_ids is None and choice.text:
            raise ServiceError(
                "The server answers without token ids.",
                got=self.address.base_url,
                expected="a vLLM server that knows return_token_ids",
                fix="Use a newer vLLM; docs/deployment.md names a version that works.",
            )
        return list(token_ids or ())

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the client in this package's words."""
        try:
            yield
        except self._openai.APIStatusError as error:
            raise _refusal(error.status_code, _message(error), self.address) from error
        except self._openai.APITimeoutError as error:
            raise ServiceError(
                "The vLLM server does not answer in time.",
                got=f"nothing from {self.address.base_url} for {self.address.timeout_s:g} s",
                fix="Look at its log and at /metrics: too many requests may wait.",
            ) from error
        except self._openai.APIConnectionError as error:
            raise ServiceError(
                "There is no vLLM server, or the connection broke.",
                got=f"{self.address.base_url}: {error.__cause__ or error}",
                expected="a vLLM server",
                fix=f"Start it: {START}",
            ) from error
        except (self._openai.OpenAIError, ValueError) as error:
            raise ServiceError(
                "The vLLM server answers something that is not understood.",
                got=f"{self.address.base_url}: {' '.join(str(error).split())[:300]}",
            ) from error


def _message(error: Any) -> str:
    """What a server says about a refusal."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(said or error.message).split())[:500]


def _refusal(status: int, said: str, address: VllmAddress) -> IcaeError:
    """A refusal of the server as an error that says what to do."""
    got = f"{address.base_url} ({status}): {said}"
    if status == 400 and ("context length" in said or "max_model_len" in said):
        return InputError(
            "Memory, prompt and answer do not fit the context window of the vLLM server.",
            got=said,
            fix="Use a higher ratio, fewer memories, a shorter answer or a larger --max-model-len.",
        )
    if "hidden_size" in said:
        return BaseModelError(
            "The vLLM server runs another model than the adapter's base.",
            got=got,
            fix="Serve the base model of the adapter.",
        )
    message, fix = "The vLLM server refuses a request.", None
    if "enable-prompt-embeds" in said:
        message = "The vLLM server takes no prompt embeds."
        fix = "Start it with --enable-prompt-embeds, where only this program reaches it."
    elif status in (401, 403):
        message = "The vLLM server refuses the key."
        fix = "Give the key it was started with in $ICAE_ENGINE_KEY."
    elif status == 404:
        message = "The vLLM server does not have this model or address."
        fix = "Look at the models it serves: /v1/models."
    return ServiceError(message, got=got, fix=fix)
