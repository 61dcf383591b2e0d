"""Reading memories: answers and reconstructions, by whichever runtime runs the decoder.

Nothing here needs torch; compressing does, and is in `icae.engine`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from icae.config.types import Answer, FloatArray, Reconstruction, TokenIds
from icae.decode.answering import Answerer
from icae.decode.prefix import Prefix, Request
from icae.decode.reconstruction import joined_text
from icae.decode.reconstruction import reconstruct as reconstruct_spans
from icae.decode.runtime import Runtime
from icae.errors import IncompatibleMemoryError, InputError, require_type
from icae.memory import Embeddings, Memory, Provenance, Verbatim, hash_token_ids
from icae.memory.document import MemoryDocument
from icae.memory.fidelity_page import fidelity_html
from icae.memory.provenance import StoredDtype
from icae.model.adapter_files import AdapterInfo
from icae.model.prompts import (
    READ_FIRST,
    render_messages,
    render_prompt,
    tokenize,
    tokenize_with_offsets,
)

if TYPE_CHECKING:
    from icae.decode.conversation import Conversation


class Html(str):
    """HTML that a notebook shows as it looks."""

    def _repr_html_(self) -> str:
        return str(self)


Turn = tuple[str, str]  # an earlier question and its answer


class Reader:
    """A base model with an adapter's objective tokens: it reads memories.

    Whatever takes a memory refuses that of another adapter or base (IncompatibleMemoryError).

    Args:
        runtime: Runs the decoder.
        info: What the adapter records.
        tokenizer: The base model's tokenizer.
        provenance: What the memories that fit are keyed by.
        stop_ids: Tokens that end an answer, where the adapter names none.
        closing: Objective vectors [M, D] that it places behind a prompt, too, or None.
        load_maker: Loads a reader that also makes memories, with slots of a precision.

    Attributes:
        name: Name of the adapter.
        config: Architecture of the adapter.
        info: Everything the adapter records about itself.
        provenance: What the memories that fit are keyed by.
        decoder: The runtime that answers.
        answerer: Lets it answer rendered prompts.
        maker: Gives the reader that makes memories with slots of a precision, loaded once.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        info: AdapterInfo,
        tokenizer: Any,
        provenance: Provenance,
        stop_ids: Sequence[int],
        load_maker: Callable[[StoredDtype], Reader],
        closing: FloatArray | None = None,
    ) -> None:
        self._closing = None if closing is None else Embeddings(slots_KD=closing)
        self.maker = functools.cache(load_maker)
        self.name, self.info, self.config = info.name, info, info.model
        self.provenance, self.tokenizer, self.decoder = provenance, tokenizer, runtime
        self.answerer = Answerer(
            runtime=runtime, tokenizer=tokenizer, stop_ids=self.config.asking.stop or stop_ids
        )

    @property
    def readable(self) -> tuple[Provenance, ...]:
        """Provenances of the memories that can be read, its own first."""
        dtypes = self.decoder.slot_dtypes
        return tuple(replace(self.provenance, slot_dtype=dtype) for dtype in dtypes)

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens."""
        return len(tokenize(self.tokenizer, text))

    def kv_bytes(self, positions: int) -> int:
        """Bytes of decoder key-value cache for that many positions."""
        return self.decoder.kv_bytes(positions)

    def ask(
        self,
        memory: Memory | None,
        question: str,
        *,
        history: Sequence[Turn] = (),
        max_new_tokens: int = 128,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer a question from a memory: the decoder sees its slots and verbatim tokens.

        Args:
            memory: A memory made by this adapter (add memories to ask several at once), or None.
            question: The question, not blank.
            history: Earlier turns of the conversation.
            max_new_tokens: Most tokens of the answer.
            on_text: Called with each piece of text as it is written.

        Returns:
            The answer by greedy decoding.

        Raises:
            IncompatibleMemoryError: If the memory was made by another adapter or base.
            InputError: If the question is blank, or memory, prompt and answer do not fit
                the decoder's context window.
        """
        answer = self.answerer.answer(
            self.request(memory, question, history=history),
            memory_positions=0 if memory is None else memory.positions,
            max_new_tokens=max_new_tokens,
            on_text=on_text,
        )
        return answer if memory is None else replace(answer, sources=_names(memory))

    def request(
        self, memory: Memory | None, question: str, *, history: Sequence[Turn] = ()
    ) -> Request:
        """What the decoder reads for a question, for `Answerer.answer_many`; as for `ask`.

        Without a memory it is the question alone.
        """
        return self._behind(self._prefix(memory), self._prompt(question, history))

    def request_messages(
        self,
        memory: Memory | None,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Request:
        """The same for messages as the chat template reads them, tools among them.

        See `icae.model.prompts.render_messages`.
        """
        prompt_ids = render_messages(self.tokenizer, messages, tools=tools)
        return self._behind(self._prefix(memory), prompt_ids)

    def _prefix(self, memory: Memory | None) -> Prefix | None:
        if memory is None:
            return None
        self.require_own(memory)
        return self.decoder.asked(memory)

    def _behind(self, prefix: Prefix | None, prompt_ids: TokenIds) -> Request:
        """A prompt behind what is read of a memory."""
        if prefix is None or self._closing is None:
            return Request(prefix=prefix, prompt_ids=prompt_ids)
        return Request(
            prefix=prefix.behind((), (self._closing, Verbatim(ids=prompt_ids))),
            prompt_ids=prompt_ids[:0],
        )

    def ask_many(
        self,
        questions: Sequence[tuple[Memory | str, str]],
        *,
        max_new_tokens: int = 128,
    ) -> list[Answer]:
        """Answer many questions together, each on its own: faster than one after another.

        A memory that several questions share is read once. In float32 the answers are
        those of `ask` and `ask_text`.

        Args:
            questions: What to answer from (a memory, or a text for its full context), and
                the question.
            max_new_tokens: Most tokens of each answer.

        Returns:
            The answers, in the order of the questions; their times count from the start of
            the batch that they were written in.

        Raises:
            IncompatibleMemoryError, InputError: As for `ask`.
        """
        requests, positions, sources = [], [], []
        for context, question in questions:
            if isinstance(context, Memory):
                requests.append(self.request(context, question))
                positions.append(context.positions)
                sources.append(_names(context))
            else:
                requests.append(self._text_request(context, question, ()))
                positions.append(self.count_tokens(context))
                sources.append(())
        answers = self.answerer.answer_many(
            requests, memory_positions=positions, max_new_tokens=max_new_tokens
        )
        return [replace(one, sources=own) for one, own in zip(answers, sources, strict=True)]

    def ask_text(
        self,
        text: str,
        question: str,
        *,
        history: Sequence[Turn] = (),
        max_new_tokens: int = 128,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer a question with the full text in the prompt, for comparison; as `ask`.

        The text stands before the first question of the conversation.
        """
        return self.answerer.answer(
            self._text_request(text, question, history),
            memory_positions=self.count_tokens(text),
            max_new_tokens=max_new_tokens,
            on_text=on_text,
        )

    def reconstruct(
        self,
        memory: Memory,
        *,
        spans: Sequence[int] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Reconstruction]:
        """Write spans back out from their slots alone, by greedy decoding.

        Verbatim spans come back as they stand, without the model.

        Args:
            memory: A memory made by this adapter.
            spans: Indices of the spans, or None for all.
            on_progress: Called with (spans done, spans in all).

        Returns:
            One reconstruction for each span, in the order asked for.

        Raises:
            InputError: If a span index is out of range.
        """
        self.require_own(memory)
        return reconstruct_spans(
            self.decoder, self.tokenizer, memory, spans=spans, on_progress=on_progress
        )

    def shaded(self, memory: Memory) -> Html:
        """The text of a memory, each token shaded by how faithfully it is held, for a notebook."""
        return Html(fidelity_html(memory, self.token_places(memory)))

    def token_places(self, memory: Memory) -> list[Sequence[int] | None]:
        """Character at which each token starts, for each document; see `places_in`."""
        self.require_own(memory)
        begin = self.config.asking.begin
        return [places_in(document, self.tokenizer, begin) for document in memory.documents]

    def fold(self, told: Conversation, question: str) -> Memory:
        """The memory of turns that left a conversation, with those that leave before a question."""
        made = (told.memory or self).provenance
        return self.maker(made.slot_dtype).fold(told, question)

    def joined_text(self, memory: Memory, spans: Sequence[Reconstruction]) -> str:
        """The text of several reconstructed spans of a memory; see `icae.decode.reconstruction`."""
        return joined_text(self.tokenizer, memory, spans)

    def memory_digest(self, memory: Memory) -> str:
        """SHA-256 of what the decoder reads of a memory before a question."""
        return self.decoder.asked(memory).digest

    def save_kv(self, memory: Memory) -> bytes:
        """The decoder's key-value cache of a memory, for `load_kv` of the same runtime.

        Raises:
            InputError: If the cache of this base model cannot be kept, or the memory does
                not fit its context window.
        """
        self.require_own(memory)
        prefix = self.decoder.asked(memory)
        nothing = Request(prefix=prefix, prompt_ids=np.zeros(0, dtype=np.int64))
        self.answerer.require_room(nothing, 1)
        return self.decoder.save_kv(prefix)

    def load_kv(self, memory: Memory, data: bytes) -> None:
        """Take a cache from `save_kv`, so that the next question need not read the memory.

        Raises:
            InputError: If the bytes are no such cache.
        """
        self.require_own(memory)
        self.decoder.load_kv(self.decoder.asked(memory), data)

    def require_own(self, memory: Memory) -> None:
        """Refuse a memory that this adapter on this base model cannot read.

        Raises:
            IncompatibleMemoryError: If it was made by another one.
        """
        require_type(memory, Memory, what="a memory", fix="Read it first: icae.Memory.load(path).")
        own = self.provenance
        if memory.provenance.slot_dtype in self.decoder.slot_dtypes:
            own = replace(own, slot_dtype=memory.provenance.slot_dtype)
        own.require_match(
            memory.provenance, what_self="the loaded adapter", what_other="the memory"
        )
        highest = int(memory.verbatim_ids.max(initial=0))
        if highest >= self.decoder.vocabulary:
            raise IncompatibleMemoryError(
                "The memory holds a token that the base model does not have.",
                got=f"token id {highest}",
                expected=f"below {self.decoder.vocabulary}",
                fix="Compress the documents again; the file may have been tampered with.",
            )

    def _require_question(self, question: str) -> None:
        require_type(question, str, what="a question", fix="Pass the memory first, then the text.")
        if not question.strip():
            raise InputError("The question is blank.", expected="a question")

    def _text_request(self, text: str, question: str, history: Sequence[Turn]) -> Request:
        """A request with the text before the first question."""
        require_type(text, str, what="a text", fix=READ_FIRST)
        if not text.strip():
            raise InputError("There is no text to answer from.", got="blank text", expected="text")
        self._require_question(question)
        if history:
            (first, answer), *rest = history
            history = [(f"{text}\n\n{first}", answer), *rest]
        else:
            question = f"{text}\n\n{question}"
        return Request(prefix=None, prompt_ids=self._prompt(question, history))

    def _prompt(self, question: str, history: Sequence[Turn]) -> TokenIds:
        self._require_question(question)
        return render_prompt(self.tokenizer, question, history=history, asking=self.config.asking)


def _names(memory: Memory) -> tuple[str, ...]:
    return tuple(document.name for document in memory.documents)


def places_in(
    document: MemoryDocument, tokenizer: Any, begin: Sequence[int] = ()
) -> Sequence[int] | None:
    """Character at which each token of a document starts; `begin` are the adapter's before it.

    None if its text was not kept, or does not give the tokens that it was compressed from.
    """
    if document.source is None or not document.source.strip():
        return None
    ids, starts = tokenize_with_offsets(tokenizer, document.source, begin)
    if document.token_ids_sha256 is not None:
        return starts if hash_token_ids(ids) == document.token_ids_sha256 else None
    # A slice or an edit does not know its ids as a whole: every span has to fit.
    fits = len(ids) == document.tokens and all(
        starts[span.token_start] == span.char_start for span in document.spans[1:]
    )
    return starts if fits else None
