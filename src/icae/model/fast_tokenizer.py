"""A base model's tokenizer without transformers: `tokenizers` for the ids, Jinja for the chat.

It has the part of the transformers interface that this package uses, and gives the same
ids and texts; importing transformers takes longer than answering from a cached memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from icae.errors import BaseModelError


class FastTokenizer:
    """The tokenizer of a folder with ``tokenizer.json`` and ``tokenizer_config.json``.

    Raises:
        BaseModelError: If there is no fast tokenizer in the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        try:
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            self.backend_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # `tokenizers` raises bare Exception for a damaged file
            raise BaseModelError(
                f"There is no fast tokenizer in {folder}.",
                got=str(error),
                expected="tokenizer.json and tokenizer_config.json",
                fix="Use --runtime torch, which reads every tokenizer of transformers.",
            ) from error
        self.name_or_path = str(folder)
        self.backend_tokenizer.no_truncation()
        self.backend_tokenizer.no_padding()
        self._special = {
            name: text
            for name, token in settings.items()
            if name.endswith("_token") and (text := _text(token)) is not None
        }
        self.chat_template = _chat_template(folder, settings)
        self.bos_token_id = self._id_of("bos_token")
        self.eos_token_id = self._id_of("eos_token")

    def _id_of(self, special: str) -> int | None:
        text = self._special.get(special)
        return None if text is None else self.backend_tokenizer.token_to_id(text)

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
        """Token ids (``input_ids``) and their places (``offset_mapping``: start, end) of a text.

        Of the options, ``add_special_tokens`` (default True) and ``split_special_tokens`` (default
        False: special tokens in the text are what they stand for) are looked at; others change no
        id.
        """
        self.backend_tokenizer.encode_special_tokens = bool(options.get("split_special_tokens"))
        # As a batch of one: other threads go on meanwhile.
        (encoded,) = self.backend_tokenizer.encode_batch(
            [text], add_special_tokens=bool(options.get("add_special_tokens", True))
        )
        return {"input_ids": encoded.ids, "offset_mapping": encoded.offsets}

    def decode(
        self, token_ids: Sequence[int], *, skip_special_tokens: bool = False, **_: Any
    ) -> str:
        """The text of token ids."""
        return str(
            self.backend_tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        )

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool,
        tokenize: bool = False,
    ) -> str:
        """A conversation as the model's chat template writes it, never tokenized.

        Raises:
            BaseModelError: If the template cannot be rendered.
        """
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        if tokenize or self.chat_template is None:
            raise ValueError("only the text of an existing chat template is rendered here")
        # As transformers sets Jinja up; templates are written for these settings.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
        try:
            return environment.from_string(self.chat_template).render(
                messages=[dict(message) for message in messages],
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                **self._special,
            )
        except TemplateError as error:
            raise BaseModelError(
                f"The chat template of {self.name_or_path} cannot be rendered.", got=str(error)
            ) from error


def _text(token: Any) -> str | None:
    """The text of a special token, which may be written as a mapping."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The default chat template: a file of its own, or an entry of the settings."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {entry["name"]: entry["template"] for entry in found}
        found = named.get("default")
    return None if found is None else str(found)


def _raise_exception(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
