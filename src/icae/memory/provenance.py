"""What made a memory: the decoder, adapter and tokenizer that its slots belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from icae.config.parsing import check
from icae.config.types import POSITION_LAYOUTS, KeyValueShape, PositionLayout, SpanKind
from icae.errors import IncompatibleMemoryError
from icae.memory.checks import check_text

SlotDtype = Literal["bfloat16", "float32"]
"""Precision in which slots that are embeddings are stored, and models compute."""

KeyValueDtype = Literal["bfloat16", "int8"]
"""How keys and values are stored; see `icae.memory.key_values`."""

StoredDtype = Literal["bfloat16", "float32", "int8"]
"""How the slots of a memory of either form are stored."""

SLOT_DTYPES: tuple[SlotDtype, ...] = get_args(SlotDtype)

KEY_VALUE_DTYPE: KeyValueDtype = "bfloat16"
"""How keys and values are stored that are made now."""

KEY_VALUE_DTYPES: tuple[KeyValueDtype, ...] = tuple(
    sorted(get_args(KeyValueDtype), key=lambda dtype: dtype != KEY_VALUE_DTYPE)
)
"""How they may be stored, as they are now first."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The models whose input space the slots live in.

    Two memories fit together, and a memory fits a model, if all fields but the two
    names agree: a model may be renamed or moved without its memories becoming useless.

    Attributes:
        base_model: Name of the base model, for messages.
        base_hash: Digest of the base model's weights.
        adapter: Name of the adapter, for messages.
        adapter_hash: Digest of the adapter's weights and configuration.
        tokenizer_hash: Digest of the tokenizer.
        layout: Where memory tokens and slots stand on the position axis.
        hidden_size: D, the width of one slot that is an embedding.
        key_values: What a slot holds that is keys and values; None where slots are embeddings.
        slot_dtype: How the slots are stored.

    Raises:
        ConfigError: If a field is empty, not known or out of range.
    """

    base_model: str
    base_hash: str
    adapter: str
    adapter_hash: str
    tokenizer_hash: str
    layout: PositionLayout
    hidden_size: int
    key_values: KeyValueShape | None
    slot_dtype: StoredDtype

    def __post_init__(self) -> None:
        for name in ("base_model", "base_hash", "adapter", "adapter_hash", "tokenizer_hash"):
            value = getattr(self, name)
            check_text(f"provenance.{name}", value)
            check(bool(value), f"provenance.{name} is empty.", value, "a name or digest")
        dtypes = SLOT_DTYPES if self.key_values is None else KEY_VALUE_DTYPES
        for name, known in (("layout", POSITION_LAYOUTS), ("slot_dtype", dtypes)):
            value = getattr(self, name)
            check(value in known, f"provenance.{name} is not known.", value, ", ".join(known))
        width = self.hidden_size
        check(width >= 1, "provenance.hidden_size is out of range.", width, ">=1")
        axes = self.key_values.axes if self.key_values else (1,)
        check(min(axes) >= 1, "provenance.key_values is out of range.", axes, ">=1")

    @property
    def slot_kind(self) -> SpanKind:
        """Form of the slots."""
        return "slots" if self.key_values is None else "key-values"

    def require_match(self, other: Provenance, *, what_self: str, what_other: str) -> None:
        """Refuse slots that were made for something else, if more than names differ.

        `what_self` and `what_other` have the two: "the loaded model" and "notes.icae". The
        IncompatibleMemoryError names both, every field that differs, and its two values.
        """
        mine, theirs = self._identity(), other._identity()
        differing = [label for label in mine if mine[label][0] != theirs[label][0]]
        if not differing:
            return
        raise IncompatibleMemoryError(
            f"{what_other} does not fit {what_self}: {', '.join(differing)} differ"
            f"{'s' if len(differing) == 1 else ''}.",
            got=f"{what_other}: " + ", ".join(theirs[label][1] for label in differing),
            expected=f"{what_self}: " + ", ".join(mine[label][1] for label in differing),
            fix=f"Load the adapter with --dtype {other.slot_dtype}."
            if differing == ["slot dtype"]
            else "Use the model and adapter that made the memory, or compress the documents again: "
            "`icae upgrade` does from the text that memories keep.",
        )

    def _identity(self) -> dict[str, tuple[object, str]]:
        """Field label -> (value that has to agree, how a message shows it)."""
        return {
            "base model": (self.base_hash, f"base model {self.base_model} ({self.base_hash})"),
            "adapter": (self.adapter_hash, f"adapter {self.adapter} ({self.adapter_hash})"),
            "tokenizer": (self.tokenizer_hash, f"tokenizer {self.tokenizer_hash}"),
            "layout": (self.layout, f"layout {self.layout}"),
            "hidden size": (self.hidden_size, f"hidden size {self.hidden_size}"),
            "form": (self.key_values, f"{self.slot_kind} {self.key_values or ''}".strip()),
            "slot dtype": (self.slot_dtype, f"slot dtype {self.slot_dtype}"),
        }
