"""Text to token ids, the same way everywhere, and prompts by the tokenizer's own chat template.

Text is never control: a special token that stands in a document, a question or an earlier answer
is encoded as the characters it is written with. Only the template writes special tokens.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from icae.config.asking import AskingConfig
from icae.config.types import TokenIds
from icae.errors import InputError, require_type

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


READ_FIRST = "Read the file first: icae.data.documents.read_document(path).text."
"""What to do with a path where a text is wanted."""


class Tokenizer(Protocol):
    """What is used of a fast tokenizer of transformers.

    Attributes:
        name_or_path: Where it was loaded from.
        backend_tokenizer: The tokenizer of the `tokenizers` package.
        chat_template: The chat template (Jinja), or None.
        bos_token_id: The token that begins a text, or None.
        eos_token_id: The token that ends a text, or None.
    """

    name_or_path: str
    backend_tokenizer: Backend
    chat_template: str | None
    bos_token_id: int | None
    eos_token_id: int | None

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
        """``input_ids`` of a text, and their ``offset_mapping`` if it is asked for."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = ...) -> str:
        """The text of token ids."""
        ...

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = ...,
        add_generation_prompt: bool,
        tokenize: bool,
    ) -> str:
        """A conversation as the chat template writes it."""
        ...


_ENCODING: WeakKeyDictionary[Tokenizer, threading.Lock] = WeakKeyDictionary()
"""Held while a tokenizer encodes: whether special tokens are text is a state of it."""

CHAT = AskingConfig()
"""How memories are asked where an adapter says nothing else."""


def tokenize(tokenizer: Tokenizer, text: str) -> TokenIds:
    """Token ids of plain text, without special tokens; the same in training and inference."""
    return np.asarray(_encode(tokenizer, text)["input_ids"], dtype=np.int64)


def _encode(
    tokenizer: Tokenizer, text: str, *, control: bool = False, offsets: bool = False
) -> Mapping[str, Any]:
    """Encode a text; special tokens in it are text, or what they stand for (`control`)."""
    with _ENCODING.setdefault(tokenizer, threading.Lock()):
        return tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=not control,
            return_offsets_mapping=offsets,
            verbose=False,
        )


def tokenize_context(tokenizer: Tokenizer, text: str, asking: AskingConfig) -> TokenIds:
    """Token ids of a context that becomes a memory."""
    return np.array([*asking.begin, *tokenize(tokenizer, text)], dtype=np.int64)


def tokenize_with_offsets(
    tokenizer: Tokenizer, text: str, begin: Sequence[int] = (), *, control: bool = False
) -> tuple[TokenIds, list[int]]:
    """Token ids of a document, `begin` before them, and the character at which each token starts.

    Special tokens in the text are text, or with `control` what they stand for, as in a prompt that
    was rendered and decoded. An InputError if the text is blank or not valid Unicode.
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
    encoded = _encode(tokenizer, text, control=control, offsets=True)
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

    Those of the chat template with the generation prompt, or of plain ``question + newline`` where
    the tokenizer has no chat template; of an adapter with a template of its own, the question
    between that one's tokens.
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
    said = [*chain(*history), question]
    roles = cycle(("user", "assistant"))
    return render_messages(
        tokenizer, [{"role": r, "content": text} for r, text in zip(roles, said, strict=False)]
    )


def takes_tools(tokenizer: Tokenizer, asking: AskingConfig) -> bool:
    """Whether `render_messages` writes tools and what they gave: the chat template names them."""
    template = tokenizer.chat_template or ""
    return asking.template != "own" and re.search(r"\btools\b", template) is not None


def render_messages(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> TokenIds:
    """Token ids of a conversation: the template's special tokens, and all that is said as text.

    Args:
        tokenizer: One with a chat template.
        messages: ``role``, ``content`` and what else the template reads of each.
        tools: JSON schemas of the functions that may be called.

    Raises:
        InputError: If the template refuses the messages.
    """
    from jinja2 import TemplateError

    known = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    special = re.compile("|".join(re.escape(t.content) for t in known if t.special) or r"(?!)")
    said = json.dumps([messages, tools], ensure_ascii=False)
    mark = next(c for c in map(chr, range(0xE000, 0xF900)) if c not in said)

    def guarded(value: Any) -> Any:
        """The same with a mark in every special token."""
        if isinstance(value, str):
            return special.sub(lambda found: found[0][0] + mark + found[0][1:], value)
        if isinstance(value, Mapping):
            return {guarded(name): guarded(one) for name, one in value.items()}
        return [guarded(one) for one in value] if isinstance(value, list | tuple) else value

    try:
        text = tokenizer.apply_chat_template(
            guarded(messages), tools=guarded(tools), add_generation_prompt=True, tokenize=False
        )
    except (TemplateError, TypeError) as error:
        raise InputError(
            "The chat template does not take these messages.",
            got=str(error),
            fix="Let user and assistant take turns; arguments of a tool's call are a JSON object.",
        ) from error
    if mark not in text:
        return np.asarray(_encode(tokenizer, text, control=True)["input_ids"], dtype=np.int64)
    ids, end = [], 0
    for found in special.finditer(text):
        ids += tokenize(tokenizer, text[end : found.start()].replace(mark, "")).tolist()
        ids.append(tokenizer.backend_tokenizer.token_to_id(found[0]))
        end = found.end()
    ids += tokenize(tokenizer, text[end:].replace(mark, "")).tolist()
    return np.array(ids, dtype=np.int64)


def render_full_prompt(tokenizer: Tokenizer, context: str, question: str) -> TokenIds:
    """Token ids of a question with the whole context, if not blank, before it."""
    return render_prompt(tokenizer, f"{context}\n\n{question}" if context.strip() else question)


def render_answer(tokenizer: Tokenizer, answer: str, asking: AskingConfig = CHAT) -> TokenIds:
    """Token ids of an answer followed by the token that ends a turn."""
    ids = tokenize(tokenizer, answer)
    if asking.stop:
        return np.append(ids, asking.stop[0])
    return np.append(ids, tokenizer.eos_token_id) if tokenizer.eos_token_id is not None else ids
