"""The public API: load a model, compress text into a memory, ask it, write it back.

import icae

engine = icae.load()
memory = engine.compress(open("report.txt").read(), ratio=4)
print(engine.ask(memory, "Who wrote the report?").text)
memory.save("report.icae")
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from icae import living
from icae.adaptive import AdaptiveCompressor, FidelityPolicy, OnSettled
from icae.answering import Answerer
from icae.compression import Compressor
from icae.config import ModelConfig
from icae.errors import IncompatibleMemoryError, InputError
from icae.memory import Memory, Provenance
from icae.memory_refinement import refine_memory
from icae.model import (
    AdapterInfo,
    IcaeModel,
    adapter_hash,
    base_hash,
    load_adapter,
    load_decoder,
    load_tokenizer,
    read_info,
    render_prompt,
    tokenize,
    tokenizer_hash,
)
from icae.reconstruction import reconstruct as reconstruct_spans
from icae.refinement import RefineConfig
from icae.runtimes.base import Prefix, Request
from icae.runtimes.devices import pick_device, pick_dtype
from icae.runtimes.torch import TorchRuntime
from icae.teachers import TeacherWriter
from icae.types import Answer, Reconstruction, TokenIds

DEFAULT_ADAPTER = "smollm2-135m"
"""Name of the adapter folder shipped in the package."""

Turn = tuple[str, str]  # an earlier question and its answer


class Icae:
    """A loaded base model with its adapter. Make one with `load`.

    Attributes:
        name: Name of the adapter.
        config: Architecture of the adapter.
        info: Everything the adapter records about itself.
        provenance: What memories made by this engine are keyed by.
        answerer: Lets the decoder answer rendered prompts.
    """

    def __init__(
        self, model: IcaeModel, info: AdapterInfo, tokenizer: Any, provenance: Provenance
    ) -> None:
        self.name = info.name
        self.config: ModelConfig = model.config
        self.info = info
        self.provenance = provenance
        self.tokenizer = tokenizer
        self.runtime = TorchRuntime(model)
        self.compressor = Compressor(
            runtime=self.runtime,
            tokenizer=tokenizer,
            provenance=provenance,
            span_length=model.config.span_length,
        )
        self.adaptive = AdaptiveCompressor(
            compressor=self.compressor, teachers=TeacherWriter(model=model, tokenizer=tokenizer)
        )
        stops = model.decoder.generation_config.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        self.answerer = Answerer(
            runtime=self.runtime,
            tokenizer=tokenizer,
            stop_ids=sorted({i for i in (*stops, tokenizer.eos_token_id) if i is not None}),
        )

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens."""
        return len(tokenize(self.tokenizer, text))

    def kv_bytes(self, positions: int) -> int:
        """Bytes of decoder key-value cache for that many positions."""
        return self.runtime.kv_bytes(positions)

    def compress(
        self,
        text: str,
        *,
        ratio: float = 4.0,
        name: str = "text",
        verify: bool = True,
        policy: FidelityPolicy | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        start: Memory | None = None,
        on_settled: OnSettled = lambda make: None,
    ) -> Memory:
        """Compress a text into a memory.

        The text is cut into spans of at most `config.span_length` tokens; a span of L
        tokens becomes ceil(L / ratio) slots. With a policy each span gets the ratio that
        the policy asks for, or stays verbatim.

        Args:
            text: The text, not blank.
            ratio: Context tokens per slot, at least 1.
            name: Name of the document in the memory.
            verify: Measure the fidelity of each span (one more forward pass).
            policy: What every span must hold and what the whole may cost; it decides the
                ratios in place of `ratio`, and always measures.
            on_progress: Called with (work done, work in all).
            start: A memory of the same text to go on from, with a policy; see
                `icae.adaptive.AdaptiveCompressor.compress`.
            on_settled: Called when refined spans are settled, with a policy, with what
                makes the memory so far.

        Returns:
            A memory of one document; its source text is kept beside the slots.

        Raises:
            InputError: If the text is blank or not valid Unicode, or exceeds the budget.
            ConfigError: If the ratio is out of range.
        """
        tokens = self.compressor.tokenize(text)
        if policy is not None:
            return self.adaptive.compress(
                tokens,
                policy=policy,
                name=name,
                on_progress=on_progress,
                start=start,
                on_settled=on_settled,
            )
        return self.compressor.compress(
            tokens,
            ratio=ratio,
            name=name,
            verify=verify,
            on_progress=on_progress,
        )

    def verbatim(self, text: str, *, name: str = "text") -> Memory:
        """A memory that keeps a text as it is: every token takes a decoder position.

        Args:
            text: The text, not blank.
            name: Name of the document in the memory.

        Raises:
            InputError: If the text is blank or not valid Unicode.
        """
        return self.compressor.verbatim(self.compressor.tokenize(text), name=name)

    def refine(
        self,
        memory: Memory,
        config: RefineConfig,
        *,
        on_step: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[Memory]:
        """Better slots for the spans below a fidelity; see `icae.memory_refinement`."""
        self._require_own(memory)
        return refine_memory(self.adaptive, self.tokenizer, memory, config, on_step=on_step)

    def append(
        self, memory: Memory, text: str, *, document: int = -1, ratio: float | None = None
    ) -> Memory:
        """A memory with more text at the end of a document; see `icae.living.append`."""
        self._require_own(memory)
        return living.append(self.compressor, memory, text, document=document, ratio=ratio)

    def replace(
        self,
        memory: Memory,
        char_start: int,
        char_end: int,
        text: str,
        *,
        document: int = 0,
        ratio: float | None = None,
    ) -> Memory:
        """A memory with other text in place of some; see `icae.living.replace`."""
        self._require_own(memory)
        return living.replace(
            self.compressor, memory, char_start, char_end, text, document=document, ratio=ratio
        )

    def delete(
        self,
        memory: Memory,
        char_start: int,
        char_end: int,
        *,
        document: int = 0,
        ratio: float | None = None,
    ) -> Memory:
        """A memory without some of the text; see `icae.living.delete`."""
        self._require_own(memory)
        return living.delete(
            self.compressor, memory, char_start, char_end, document=document, ratio=ratio
        )

    def ask(
        self,
        memory: Memory,
        question: str,
        *,
        history: Sequence[Turn] = (),
        max_new_tokens: int = 128,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer a question from a memory: the decoder sees its slots and verbatim tokens.

        Args:
            memory: A memory made by this adapter (add memories to ask several at once).
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
        self._require_own(memory)
        prompt_ids = self._prompt(question, history)
        prefix = Prefix.of_memory(memory, "ft")
        return self.answerer.answer(
            prefix,
            prompt_ids,
            memory_positions=memory.positions,
            max_new_tokens=max_new_tokens,
            on_text=on_text,
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
            IncompatibleMemoryError: As for `ask`.
            InputError: As for `ask` and `ask_text`.
        """
        requests, positions = [], []
        for context, question in questions:
            if isinstance(context, Memory):
                self._require_own(context)
                prefix = Prefix.of_memory(context, "ft")
                prompt_ids, taken = self._prompt(question, ()), context.positions
            else:
                prefix, prompt_ids = None, self._text_prompt(context, question, ())
                taken = self.count_tokens(context)
            requests.append(Request(prefix=prefix, prompt_ids=prompt_ids))
            positions.append(taken)
        return self.answerer.answer_many(
            requests, memory_positions=positions, max_new_tokens=max_new_tokens
        )

    def ask_text(
        self,
        text: str,
        question: str,
        *,
        history: Sequence[Turn] = (),
        max_new_tokens: int = 128,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer a question with the full text in the prompt, for comparison.

        Args:
            text: The text; it stands before the first question of the conversation.
            question: The question, not blank.
            history: Earlier turns of the conversation.
            max_new_tokens: Most tokens of the answer.
            on_text: Called with each piece of text as it is written.

        Raises:
            InputError: As for `ask`.
        """
        prompt_ids = self._text_prompt(text, question, history)
        return self.answerer.answer(
            None,
            prompt_ids,
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
            IncompatibleMemoryError: If the memory was made by another adapter or base.
            InputError: If a span index is out of range.
        """
        self._require_own(memory)
        return reconstruct_spans(
            self.runtime, self.tokenizer, memory, spans=spans, on_progress=on_progress
        )

    def _require_own(self, memory: Memory) -> None:
        self.provenance.require_match(
            memory.provenance, what_self="the loaded adapter", what_other="the memory"
        )
        highest = int(memory.verbatim_ids.max(initial=0))
        if highest >= self.runtime.vocabulary:
            raise IncompatibleMemoryError(
                "The memory holds a token that the base model does not have.",
                got=f"token id {highest}",
                expected=f"below {self.runtime.vocabulary}",
                fix="Compress the documents again; the file may have been tampered with.",
            )

    def _require_question(self, question: str) -> None:
        if not question.strip():
            raise InputError("The question is blank.", expected="a question")

    def _text_prompt(self, text: str, question: str, history: Sequence[Turn]) -> TokenIds:
        """A prompt with the text before the first question."""
        if not text.strip():
            raise InputError("There is no text to answer from.", got="blank text", expected="text")
        if history:
            (first, answer), *rest = history
            turns: list[Turn] = [(f"{text}\n\n{first}", answer), *rest]
            return self._prompt(question, turns)
        self._require_question(question)
        return self._prompt(f"{text}\n\n{question}", ())

    def _prompt(self, question: str, history: Sequence[Turn]) -> TokenIds:
        self._require_question(question)
        return render_prompt(self.tokenizer, question, history=history)


def default_adapter() -> Path:
    """Folder of the adapter shipped in the package."""
    return Path(str(resources.files("icae") / "adapters" / DEFAULT_ADAPTER))


def load(
    adapter: str | Path | None = None,
    *,
    base: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Icae:
    """Load an adapter and its base model.

    Args:
        adapter: Adapter folder; by default the one shipped for SmolLM2-135M-Instruct.
        base: Base model name, hub id or folder; by default the one the adapter records.
        device: Torch device; by default CUDA, then MPS, then the CPU.
        dtype: ``bfloat16`` or ``float32``; by default bfloat16 where the device computes
            in it, else float32.

    Raises:
        AdapterError: If the adapter cannot be read or belongs to another base.
        BaseModelError: If the base model cannot be loaded.
        InputError: If the device or dtype is not known.
    """
    folder = default_adapter() if adapter is None else Path(adapter)
    info = read_info(folder)
    place = pick_device(device)
    precision = pick_dtype(dtype, place)
    name = base or info.base_model
    decoder = load_decoder(name, dtype=precision, device=place)
    weights = base_hash(name, decoder)
    model, info = load_adapter(folder, decoder, base_model=name, base_hash=weights)
    tokenizer = load_tokenizer(name)
    provenance = Provenance(
        base_model=name,
        base_hash=weights,
        adapter=info.name,
        adapter_hash=adapter_hash(folder),
        tokenizer_hash=tokenizer_hash(tokenizer),
        layout=info.model.layout,
        hidden_size=int(decoder.config.hidden_size),
        slot_dtype="bfloat16" if precision == torch.bfloat16 else "float32",
    )
    return Icae(model, info, tokenizer, provenance)


@functools.lru_cache(maxsize=1)
def _default() -> Icae:
    return load()


def compress(text: str, *, ratio: float = 4.0, name: str = "text") -> Memory:
    """`Icae.compress` with the default adapter, loaded on first use and kept."""
    return _default().compress(text, ratio=ratio, name=name)


def ask(memory: Memory, question: str, *, max_new_tokens: int = 128) -> Answer:
    """`Icae.ask` with the default adapter, loaded on first use and kept."""
    return _default().ask(memory, question, max_new_tokens=max_new_tokens)


def reconstruct(memory: Memory, *, spans: Sequence[int] | None = None) -> list[Reconstruction]:
    """`Icae.reconstruct` with the default adapter, loaded on first use and kept."""
    return _default().reconstruct(memory, spans=spans)
