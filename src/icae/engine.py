"""The public API: load a model, compress text into a memory, ask it, write it back.

import icae

engine = icae.load()
memory = engine.compress(open("report.txt").read(), ratio=4)
print(engine.ask(memory, "Who wrote the report?").text)
memory.save("report.icae")
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from icae.compression import living
from icae.compression.adaptive import AdaptiveCompressor, FidelityPolicy, OnSettled
from icae.compression.compressor import Compressor, OnProgress
from icae.compression.folding import fold
from icae.compression.other_weights import require_readable
from icae.compression.refinement import RefineConfig
from icae.compression.study import OnStudy, StudyConfig, study_memory
from icae.compression.teachers import TeacherWriter
from icae.compression.upgrade import upgraded
from icae.config.types import Answer, Reconstruction
from icae.decode.conversation import Conversation
from icae.decode.devices import pick_device, pick_dtype
from icae.decode.reader import Reader
from icae.decode.runtime import Runtime
from icae.decode.torch import TorchRuntime
from icae.errors import AdapterError, InputError
from icae.memory import Memory, Provenance
from icae.memory.provenance import KEY_VALUE_DTYPE, SlotDtype
from icae.model.adapter import load_trained
from icae.model.adapter_files import (
    AdapterInfo,
    adapter_folder,
    adapter_hash,
    read_info,
    require_base,
)
from icae.model.base import load_decoder, load_tokenizer
from icae.model.base_files import stop_tokens, tokenizer_hash
from icae.model.decoder import key_value_shape
from icae.model.icae import IcaeModel
from icae.model.key_values import KeyValueModel
from icae.model.self_check import checked_base


class Engine(Reader):
    """A loaded base model with its adapter: a `Reader` that also writes. Make one with `load`.

    Args:
        model: The loaded model.
        info: What the adapter records.
        tokenizer: The base model's tokenizer.
        provenance: What the memories that fit are keyed by.
        decoder: What answers, or None for the loaded model itself.

    Attributes:
        runtime: Encodes and verifies, and runs the decoder unless another runtime does.
    """

    def __init__(
        self,
        model: IcaeModel | KeyValueModel,
        info: AdapterInfo,
        tokenizer: Any,
        provenance: Provenance,
        *,
        decoder: Runtime | None = None,
    ) -> None:
        self.runtime = TorchRuntime(model)
        super().__init__(
            runtime=self.runtime if decoder is None else decoder,
            info=replace(info, model=model.config),
            tokenizer=tokenizer,
            provenance=provenance,
            stop_ids=stop_tokens(
                model.decoder.generation_config.eos_token_id, tokenizer.eos_token_id
            ),
            load_maker=lambda slot_dtype: self,
        )
        self.compressor = Compressor(
            runtime=self.runtime,
            tokenizer=tokenizer,
            provenance=provenance,
            config=model.config,
        )
        self.adaptive = AdaptiveCompressor(
            compressor=self.compressor,
            teachers=TeacherWriter(decoder=model.decoder, tokenizer=tokenizer),
        )

    def answering_in(self, decoder: Runtime) -> Engine:
        """The same model, with memories read by another runtime of its base model."""
        return Engine(
            self.runtime.model, self.info, self.tokenizer, self.provenance, decoder=decoder
        )

    def compress(
        self,
        text: str,
        *,
        ratio: float | None = None,
        name: str = "text",
        verify: bool = True,
        policy: FidelityPolicy | None = None,
        on_progress: OnProgress | None = None,
        start: Memory | None = None,
        on_settled: OnSettled = lambda make: None,
    ) -> Memory:
        """Compress a text, cut into spans of at most `config.span_length` tokens, into a memory.

        A span of L tokens becomes ceil(L / ratio) slots.

        Args:
            text: The text, not blank.
            ratio: Context tokens per slot, at least 1; by default 4, or the adapter's own.
            name: Name of the document in the memory.
            verify: Measure the fidelity of each span.
            policy: What every span must hold and what the whole may cost, in place of `ratio`.
            on_progress: Called with (work done, work in all).
            start: With a policy, a memory of the same text to go on from.
            on_settled: With a policy, called when refined spans are settled, with what makes
                the memory so far.

        Returns:
            A memory of one document; its source text is kept beside the slots.

        Raises:
            InputError: If the text is blank or not valid Unicode, or exceeds the budget.
            ConfigError: If the ratio is out of range.
        """
        if policy is None:
            (memory,) = self.compress_many(
                [text], ratio=ratio, names=[name], verify=verify, on_progress=on_progress
            )
            return memory
        tokens = self.compressor.tokenize(text)
        self.config.ratio_for(max(policy.ratios))
        memory = self.adaptive.compress(
            tokens,
            policy=policy,
            name=name,
            on_progress=on_progress,
            start=start,
            on_settled=on_settled,
        )
        return self.compressor.with_recall(memory, {0: tokens.ids})

    def compress_many(
        self,
        texts: Sequence[str],
        *,
        ratio: float | None = None,
        names: Sequence[str] | None = None,
        verify: bool = True,
        on_progress: OnProgress | None = None,
    ) -> list[Memory]:
        """Compress several texts, each into a memory of its own; as `compress`, but faster.

        Spans of all texts share forward passes, those of like length together.

        Args:
            texts: The texts, none blank.
            ratio: Context tokens per slot.
            names: Name of the document in each memory, or None for ``text``.
            verify: Measure the fidelity of each span.
            on_progress: Called with (spans done, spans in all).
        """
        names = ["text"] * len(texts) if names is None else list(names)
        if len(names) != len(texts):
            raise InputError(
                "Every text needs a name.", got=f"{len(names)} names", expected=str(len(texts))
            )
        return self.compressor.compress_many(
            [self.compressor.tokenize(text) for text in texts],
            ratio=self.config.ratio_for(ratio),
            names=names,
            verify=verify,
            on_progress=on_progress,
        )

    def verbatim(self, text: str, *, name: str = "text") -> Memory:
        """A memory that keeps a text as it is: every token takes a decoder position.

        Raises:
            InputError: If the text is blank or not valid Unicode.
        """
        return self.compressor.verbatim(self.compressor.tokenize(text), name=name)

    def require_same(self, memory: Memory) -> None:
        """Refuse a memory that cannot be read, or whose embeddings are stored otherwise."""
        self.require_own(memory)
        if self.provenance.key_values is None:
            self.provenance.require_match(
                memory.provenance, what_self="the loaded adapter", what_other="the memory"
            )

    def refine(
        self,
        memory: Memory,
        config: RefineConfig,
        *,
        on_step: OnProgress = lambda done, total: None,
    ) -> Iterator[Memory]:
        """Better slots for the spans below a fidelity; see `icae.compression.adaptive`."""
        self.require_same(memory)
        return self.adaptive.improved(memory, config, on_step=on_step)

    def upgrade(
        self, memory: Memory, *, on_progress: OnProgress = lambda done, total: None
    ) -> Memory:
        """Documents that another adapter compressed; see `icae.compression.upgrade.upgraded`."""
        return upgraded(self.compressor, memory, on_progress=on_progress)

    def study(
        self,
        memory: Memory,
        config: StudyConfig,
        *,
        questions: Sequence[str] = (),
        on_step: OnStudy = lambda done, total, held: None,
    ) -> tuple[Memory, tuple[float, ...]]:
        """A memory that learned from its own document; see `icae.compression.study`.

        Args:
            memory: A memory of one document, all of whose spans are slots; its text was kept.
            config: How it studies.
            questions: Questions that it must be good for, beside those it is asked anyway.
            on_step: Called after each step.

        Returns:
            The memory with its fidelity and recall measured anew, its steps and seconds added to
            those of refinement; and the KL of the held-out lessons at each look.

        Raises:
            InputError: If it has several documents, verbatim spans or no text.
        """
        self.require_same(memory)
        stop_ids = self.answerer.stop_ids
        return study_memory(self.compressor, stop_ids, memory, config, questions, on_step)

    def append(
        self, memory: Memory, text: str, *, document: int = -1, ratio: float | None = None
    ) -> Memory:
        """More text at the end of a document; see `icae.compression.living.append`."""
        self.require_same(memory)
        return living.append(self.compressor, memory, text, document=document, ratio=ratio)

    def fold(self, told: Conversation, question: str) -> Memory:
        """Old turns of a conversation as memory; see `icae.compression.folding.fold`."""
        if told.documents is not None:
            self.require_own(told.documents)
        return fold(self.compressor, told, question)

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
        """A memory with other text in place of some; see `icae.compression.living.replace`."""
        self.require_same(memory)
        chars = slice(char_start, char_end)
        return living.replace(self.compressor, memory, document, chars, text, ratio)

    def delete(
        self,
        memory: Memory,
        char_start: int,
        char_end: int,
        *,
        document: int = 0,
        ratio: float | None = None,
    ) -> Memory:
        """A memory without some of the text; see `icae.compression.living.replace`."""
        return self.replace(memory, char_start, char_end, "", document=document, ratio=ratio)


def load(
    adapter: str | Path | None = None,
    *,
    made_by: Provenance | None = None,
    base: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Engine:
    """Load an adapter and its base model.

    Args:
        adapter: Adapter folder; by default the one in the package that `made_by` names, else
            the default one, which is for SmolLM2-135M-Instruct.
        made_by: What made the memories that are to be read or changed: ``memory.provenance``.
        base: Base model name, hub id or folder; by default the one the adapter records.
        device: Torch device; by default CUDA, then MPS, then the CPU.
        dtype: ``bfloat16``, the default where the device computes in it, or ``float32``.

    Raises:
        AdapterError: If the adapter cannot be read or belongs to another base.
        IncompatibleMemoryError: If no adapter is given and none in the package made them.
        BaseModelError: If the base model cannot be loaded.
        InputError: If the device or dtype is not known.
    """
    folder = adapter_folder(adapter, made_by)
    info, place = read_info(folder), pick_device(device)
    name = base or info.base_model
    decoder = load_decoder(name, dtype=pick_dtype(dtype, place), device=place)
    return _on_base(folder, info, name, decoder)


def _on_base(folder: Path, info: AdapterInfo, name: str, decoder: PreTrainedModel) -> Engine:
    """An adapter on a base model; other weights of its shapes, settings and tokenizer are tried."""
    weights, tokenizer = checked_base(name, decoder), load_tokenizer(name)
    tokens = tokenizer_hash(tokenizer)
    other = weights != info.base_hash and tokens == info.tokenizer_hash
    in_pairs = info.model.memory == "key-values"
    make: type[IcaeModel | KeyValueModel] = KeyValueModel if in_pairs else IcaeModel
    trained_on = info.base_hash if other else weights
    try:
        model = load_trained(make, info, folder, decoder, base_model=name, base_hash=trained_on)
    except AdapterError:
        require_base(info, base_model=name, base_hash=weights)
        raise
    model.end_training()
    plain: SlotDtype = "bfloat16" if model.dtype == torch.bfloat16 else "float32"
    provenance = Provenance(
        base_model=name,
        base_hash=weights,
        adapter=info.name,
        adapter_hash=adapter_hash(folder),
        tokenizer_hash=tokens,
        layout=info.model.layout,
        hidden_size=int(decoder.config.hidden_size),
        key_values=key_value_shape(decoder) if in_pairs else None,
        slot_dtype=KEY_VALUE_DTYPE if in_pairs else plain,
    )
    engine = Engine(model, info, tokenizer, provenance)
    if other:
        require_readable(engine.compressor, info)
    return engine


@functools.lru_cache(maxsize=2)
def _loaded(folder: Path) -> Engine:
    return load(folder)


def _maker_of(memory: Memory) -> Engine:
    return _loaded(adapter_folder(None, memory.provenance))


def compress(text: str, *, ratio: float | None = None, name: str = "text") -> Memory:
    """`Engine.compress` with the default adapter, loaded on first use and kept."""
    return _loaded(adapter_folder(None)).compress(text, ratio=ratio, name=name)


def ask(memory: Memory, question: str, *, max_new_tokens: int = 128) -> Answer:
    """`Engine.ask` with the adapter in the package that made the memory, loaded and kept."""
    return _maker_of(memory).ask(memory, question, max_new_tokens=max_new_tokens)


def reconstruct(memory: Memory, *, spans: Sequence[int] | None = None) -> list[Reconstruction]:
    """`Engine.reconstruct` with the adapter in the package that made the memory."""
    return _maker_of(memory).reconstruct(memory, spans=spans)
