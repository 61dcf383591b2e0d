"""Rendering prompts with the tokenizer's own chat template, the same way everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from icae.config.asking import AskingConfig
from icae.config.types import TokenIds
from icae.errors import InputError, require_type

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


READ_FIRST = "Read the file first: icae.data.documents.read_document(path).text."
"""What to do with a path where a text is wanted."""


class Tokenizer(Protocol):
    """What is used of a fast tokenizer of transformers."""

    @property
    def name_or_path(self) -> str:
        """Where it was loaded from."""
        ...

    @property
    def backend_tokenizer(self) -> Backend:
        """The tokenizer of the `tokenizers` package."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The chat template (Jinja), or None."""
        ...

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text, or None."""
        ...

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text, or None."""
        ...

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
        """``input_ids`` of a text, and their ``offset_mapping`` if it is asked for."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = ...) -> str:
        """The text of token ids."""
        ...

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool,
        tokenize: bool,
    ) -> str:
        """A conversation as the chat template writes it."""
        ...


CHAT = AskingConfig()
"""How memories are asked where an adapter says nothing else."""


def tokenize(tokenizer: Tokenizer, text: str) -> TokenIds:
    """Token ids of plain text, without special tokens; the same in training and inference."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return np.asarray(ids, dtype=np.int64)


def tokenize_context(tokenizer: Tokenizer, text: str, asking: AskingConfig) -> TokenIds:
    """Token ids of a context that becomes a memory."""
    return np.array([*asking.begin, *tokenize(tokenizer, text)], dtype=np.int64)


def tokenize_with_offsets(
    tokenizer: Tokenizer, text: str, begin: Sequence[int] = ()
) -> tuple[TokenIds, list[int]]:
    """Token ids of a document and the character at which each token starts.

    Args:
        tokenizer: The base model's tokenizer.
        text: The document.
        begin: Token ids before those of the text.

    Raises:
        InputError: If the text is blank or not valid Unicode.
    """
    require_type(text, str, what="a text", fix=READ_FIRST)
    if not text.strip():
        raise InputError("There is nothing to compress.", got="blank text", expected="text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "The text is not valid Unicode.",
            got=f"a lone surrogate at character {error.start}",
            fix="Decode the file with the right encoding.",
        ) from error
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = np.array([*begin, *encoded["input_ids"]], dtype=np.int64)
    return ids, [0] * len(begin) + [start for start, _ in encoded["offset_mapping"]]


def render_prompt(
    tokenizer: Tokenizer,
    question: str,
    *,
    history: Sequence[tuple[str, str]] = (),
    asking: AskingConfig = CHAT,
) -> TokenIds:
    """Token ids of a question, after earlier (question, answer) turns, ready for the answer.

    Args:
        tokenizer: The base model's tokenizer.
        question: The question.
        history: Earlier turns.
        asking: How the adapter is asked.

    Returns:
        Ids of the chat template with the generation prompt, or of plain ``question + newline``
        where the tokenizer has no chat template; of an adapter with a template of its own, the
        question between that one's tokens.
    """
    if asking.template == "own":
        ids: list[int] = []
        for asked, answer in history:
            ids += [*tokenize(tokenizer, asked), *asking.behind]
            ids += [*tokenize(tokenizer, answer), *asking.stop]
            ids += asking.before[len(asking.begin) :]
        return np.array([*ids, *tokenize(tokenizer, question), *asking.behind], dtype=np.int64)
    if tokenizer.chat_template is None:
        turns = "".join(f"{q}\n{a}\n" for q, a in history)
        return tokenize(tokenizer, f"{turns}{question}\n")
    messages = []
    for user, assistant in history:
        messages += [
            {"role": "user", "content": user},
            {"role": "assistant", "content": assistant},
        ]
    messages.append({"role": "user", "content": question})
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenize(tokenizer, text)


def render_full_prompt(tokenizer: Tokenizer, context: str, question: str) -> TokenIds:
    """Token ids of a question with the whole context, if not blank, before it."""
    return render_prompt(tokenizer, f"{context}\n\n{question}" if context.strip() else question)


def render_answer(tokenizer: Tokenizer, answer: str, asking: AskingConfig = CHAT) -> TokenIds:
    """Token ids of an answer followed by the token that ends a turn."""
    ids = tokenize(tokenizer, answer)
    if asking.stop:
        return np.append(ids, asking.stop[0])
    return np.append(ids, tokenizer.eos_token_id) if tokenizer.eos_token_id is not None else ids
