"""Clients of the chat API behind one face, so that each feature is tested once for all."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tests.clients.conftest import Served


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a client made of a response; log-probabilities are of the first text."""

    texts: list[str]
    logprobs: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None


class ChatClient(Protocol):
    """A client; settings have the names of OpenAI's API."""

    def ask(self, served: Served, messages: Any, **settings: Any) -> Told: ...

    def stream(self, served: Served, messages: Any, **settings: Any) -> Iterator[str]: ...


def _told(response: Any) -> Told:
    first = response.choices[0].logprobs
    return Told(
        texts=[choice.message.content for choice in response.choices],
        logprobs=[one.logprob for one in first.content] if first else [],
        prompt_tokens=response.usage.prompt_tokens,
    )


def _pieces(chunks: Any) -> Iterator[str]:
    return (chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


class OpenAi:
    needs = "openai"

    def _create(self, served: Served, messages: Any, settings: Any) -> Any:
        openai = importlib.import_module("openai")
        client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
        settings = {"model": served.model, **settings}
        return client.chat.completions.create(messages=messages, **settings)

    def ask(self, served: Served, messages: Any, **settings: Any) -> Told:
        return _told(self._create(served, messages, settings))

    def stream(self, served: Served, messages: Any, **settings: Any) -> Iterator[str]:
        return _pieces(self._create(served, messages, {**settings, "stream": True}))


class LiteLlm(OpenAi):
    needs = "litellm"

    def _create(self, served: Served, messages: Any, settings: Any) -> Any:
        litellm = importlib.import_module("litellm")
        settings = {"model": served.model, **settings}
        settings["model"] = f"openai/{settings['model']}"
        return litellm.completion(
            messages=messages, api_base=served.url, api_key="none", max_retries=0, **settings
        )


class LangChain:
    needs = "langchain_openai"

    def _model(self, served: Served, settings: Any) -> Any:
        chat_openai = importlib.import_module("langchain_openai").ChatOpenAI
        settings = {"model": served.model, **settings}
        return chat_openai(base_url=served.url, api_key="none", max_retries=0, **settings)

    def ask(self, served: Served, messages: Any, **settings: Any) -> Told:
        made = self._model(served, settings).generate([_langchain(messages)])
        first = made.generations[0][0].generation_info.get("logprobs") or {"content": []}
        return Told(
            texts=[one.text for one in made.generations[0]],
            logprobs=[one["logprob"] for one in first["content"]],
            prompt_tokens=made.llm_output["token_usage"]["prompt_tokens"],
        )

    def stream(self, served: Served, messages: Any, **settings: Any) -> Iterator[str]:
        return (
            str(piece.text) for piece in self._model(served, settings).stream(_langchain(messages))
        )


def _langchain(messages: Any) -> Any:
    return importlib.import_module("langchain_core.messages").convert_to_messages(messages)


class LlamaIndex:
    needs = "llama_index.llms.openai_like"

    def _model(self, served: Served, settings: Any) -> Any:
        like = importlib.import_module("llama_index.llms.openai_like").OpenAILike
        own = {
            "temperature": settings.pop("temperature", 0),
            "logprobs": settings.pop("logprobs", None),
        }
        return like(
            model=settings.pop("model", served.model),
            api_base=served.url,
            api_key="none",
            is_chat_model=True,
            max_retries=0,
            context_window=1024,
            additional_kwargs=settings,
            **own,
        )

    @staticmethod
    def _messages(messages: Any) -> Any:
        kinds = importlib.import_module("llama_index.core.llms")
        return [
            kinds.ChatMessage(
                role=message["role"],
                content=message["content"],
                additional_kwargs={k: v for k, v in message.items() if k == "tool_calls"},
            )
            for message in messages
        ]

    def ask(self, served: Served, messages: Any, **settings: Any) -> Told:
        made = self._model(served, settings).chat(self._messages(messages))
        return _told(made.raw)

    def stream(self, served: Served, messages: Any, **settings: Any) -> Iterator[str]:
        model = self._model(served, settings)
        return (piece.delta or "" for piece in model.stream_chat(self._messages(messages)))


class Llm:
    """`llm` with the server in its extra-openai-models.yaml."""

    needs = "llm"
    folder: ClassVar[Path]

    def _prompt(self, served: Served, messages: Any, settings: Any, *, stream: bool) -> Any:
        llm = importlib.import_module("llm")
        (self.folder / "extra-openai-models.yaml").write_text(
            f"- model_id: served\n  model_name: {settings.pop('model', served.model)}\n"
            f"  api_base: {served.url}\n"
        )
        model = llm.get_model("served")
        talk = model.conversation()
        system = next((m["content"] for m in messages if m["role"] == "system"), None)
        *before, last = [m["content"] for m in messages if m["role"] == "user"]
        for question in before:  # it asks them itself: the answers are the server's
            talk.prompt(question, system=system, stream=False, key="none").text()
        return talk.prompt(last, system=system, stream=stream, key="none", **settings)

    def ask(self, served: Served, messages: Any, **settings: Any) -> Told:
        response = self._prompt(served, messages, settings, stream=False)
        return Told(texts=[response.text()], prompt_tokens=response.usage().input)

    def stream(self, served: Served, messages: Any, **settings: Any) -> Iterator[str]:
        return iter(self._prompt(served, messages, settings, stream=True))


CLIENTS: dict[str, Any] = {
    "openai": OpenAi(),
    "litellm": LiteLlm(),
    "langchain": LangChain(),
    "llama-index": LlamaIndex(),
    "llm": Llm(),
}
