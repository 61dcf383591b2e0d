"""The forms that a payload can have, by name: a new one is a class and its line here."""

from __future__ import annotations

from icae.config.types import SpanKind
from icae.memory.key_values import KeyValueSlots
from icae.memory.payload import Embeddings, ReadablePayload, Verbatim

FORMS: dict[SpanKind, type[ReadablePayload]] = {
    form.kind: form for form in (Verbatim, Embeddings, KeyValueSlots)
}
"""Every form by its name, in the order of their tensors in a file: largest items first."""
