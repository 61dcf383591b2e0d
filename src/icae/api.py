"""The public API: load a model, compress text into a memory, ask it, write it back.

import icae

engine = icae.load()
memory = engine.compress(open("report.txt").read(), ratio=4)
print(engine.ask(memory, "Who wrote the report?").text)
memory.save("report.icae")
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from icae.config import ModelConfig
from icae.errors import InputError
from icae.memory import Memory, MemoryDocument, Provenance, hash_token_ids, spans_of_document
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
    tokenize_with_offsets,
    tokenizer_hash,
)
from icae.model.positions import decoder_positions
from icae.runtimes.base import Prefix
from icae.runtimes.devices import pick_device, pick_dtype
from icae.runtimes.text_stream import TextStream
from icae.runtimes.torch import TorchRuntime
from icae.spans import plan_spans
from icae.types import Answer, FloatArray, Reconstruction, TokenIds

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
        stops = model.decoder.generation_config.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        self._stop_ids = {i for i in (*stops, tokenizer.eos_token_id) if i is not None}

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
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Memory:
        """Compress a text into a memory.

        The text is cut into spans of at most `config.span_length` tokens; a span of L
        tokens becomes ceil(L / ratio) slots.

        Args:
            text: The text, not blank.
            ratio: Context tokens per slot, at least 1.
            name: Name of the document in the memory.
            verify: Measure the fidelity of each span (one more forward pass).
            on_progress: Called with (spans done, spans in all).

        Returns:
            A memory of one document; its source text is kept beside the slots.

        Raises:
            InputError: If the text is blank or not valid Unicode.
            ConfigError: If the ratio is out of range.
        """
        ids, offsets = tokenize_with_offsets(self.tokenizer, text)
        plans = plan_spans(len(ids), span_length=self.config.span_length, ratio=ratio)
        pieces = [ids[p.token_start : p.token_end] for p in plans]
        slots: list[FloatArray] = []
        fidelity: list[float | None] = []
        for part in self.runtime.batches([len(piece) for piece in pieces]):
            encoded = self.runtime.encode(pieces[part], [p.slots for p in plans[part]])
            slots += encoded
            fidelity += (
                self.runtime.fidelity(encoded, pieces[part]) if verify else [None] * len(encoded)
            )
            if on_progress is not None:
                on_progress(len(slots), len(plans))
        document = MemoryDocument(
            name=name,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            chars=len(text),
            tokens=len(ids),
            source=text,
            token_ids_sha256=hash_token_ids(ids),
        )
        return Memory(
            slots=np.concatenate(slots),
            spans=spans_of_document(plans, [*offsets, len(text)], fidelity, float(ratio)),
            documents=(document,),
            provenance=self.provenance,
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
        """Answer a question from a memory; the decoder sees the slots, never the text.

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
            InputError: If the question is blank, or slots, prompt and answer do not fit
                the decoder's context window.
        """
        self._require_own(memory)
        prompt_ids = self._prompt(question, history)
        prefix = Prefix.of_memory(memory, "ft")
        return self._answer(prefix, prompt_ids, memory.slot_count, max_new_tokens, on_text)

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
        if not text.strip():
            raise InputError("There is no text to answer from.", got="blank text", expected="text")
        if history:
            (first, answer), *rest = history
            turns: list[Turn] = [(f"{text}\n\n{first}", answer), *rest]
            prompt_ids = self._prompt(question, turns)
        else:
            self._require_question(question)
            prompt_ids = self._prompt(f"{text}\n\n{question}", ())
        return self._answer(None, prompt_ids, self.count_tokens(text), max_new_tokens, on_text)

    def reconstruct(
        self,
        memory: Memory,
        *,
        spans: Sequence[int] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Reconstruction]:
        """Write spans back out from their slots alone, by greedy decoding.

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
        wanted = list(range(len(memory.spans))) if spans is None else list(spans)
        for i in wanted:
            if not 0 <= i < len(memory.spans):
                raise InputError(
                    "There is no such span.", got=str(i), expected=f"0 to {len(memory.spans) - 1}"
                )
        originals = self._original_ids(memory)
        result: list[Reconstruction] = []
        for part in self.runtime.batches([memory.spans[i].tokens for i in wanted]):
            chosen = wanted[part]
            written = self.runtime.write_back([Prefix.of_span(memory, i, "ae") for i in chosen])
            for i, ids in zip(chosen, written, strict=True):
                result.append(self._reconstruction(memory, i, ids, originals))
            if on_progress is not None:
                on_progress(len(result), len(wanted))
        return result

    def _reconstruction(
        self, memory: Memory, i: int, ids: tuple[int, ...], originals: dict[int, TokenIds]
    ) -> Reconstruction:
        span = memory.spans[i]
        prefix = None
        if span.document in originals:
            true = originals[span.document][span.token_start : span.token_end]
            same = np.asarray(ids) == true
            prefix = float(np.argmin(same) if not same.all() else len(same)) / len(same)
        return Reconstruction(
            span=i,
            text=self.tokenizer.decode(list(ids)),
            original=memory.span_source(i),
            token_ids=ids,
            exact_prefix=prefix,
        )

    def _original_ids(self, memory: Memory) -> dict[int, TokenIds]:
        """Token ids of the documents whose source was kept."""
        return {
            i: tokenize(self.tokenizer, document.source)
            for i, document in enumerate(memory.documents)
            if document.source is not None
        }

    def _require_own(self, memory: Memory) -> None:
        self.provenance.require_match(
            memory.provenance, what_self="the loaded adapter", what_other="the memory"
        )

    def _require_question(self, question: str) -> None:
        if not question.strip():
            raise InputError("The question is blank.", expected="a question")

    def _prompt(self, question: str, history: Sequence[Turn]) -> TokenIds:
        self._require_question(question)
        return render_prompt(self.tokenizer, question, history=history)

    def _answer(
        self,
        prefix: Prefix | None,
        prompt_ids: TokenIds,
        memory_positions: int,
        max_new_tokens: int,
        on_text: Callable[[str], None] | None,
    ) -> Answer:
        spans = () if prefix is None else prefix.spans
        prompt = len(prompt_ids) + (prefix is not None)
        positions = decoder_positions(self.config.layout, spans, prompt)
        if positions[-1] + 1 + max_new_tokens > self.runtime.context_window:
            before = positions[-1] + 1 - prompt
            raise InputError(
                "Memory, prompt and answer do not fit the decoder's context window.",
                got=f"{before} for the memory + {prompt} prompt + {max_new_tokens} answer",
                expected=f"at most {self.runtime.context_window} positions",
                fix="Use a higher ratio, fewer memories or a shorter answer.",
            )
        stream = TextStream(self.tokenizer, on_text)
        made = self.runtime.generate(
            prefix,
            prompt_ids,
            max_new_tokens=max_new_tokens,
            stop_ids=sorted(self._stop_ids),
            on_token=stream.add,
        )
        return Answer(
            text=stream.close(),
            prompt_tokens=made.positions,
            memory_positions=memory_positions,
            answer_tokens=len(made.token_ids),
            seconds=made.seconds,
            first_token_seconds=made.first_token_seconds,
            finished=made.stopped,
        )


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
