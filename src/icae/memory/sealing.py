"""Which tensors keep the payloads of a file, and what its digests cover.

The digest of a span covers its rows of these tensors, so that a part of a file can be checked
alone; that of the file covers the header, the digests of the spans in it, and all else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from icae.memory.container import SPAN, Buffer, Description, digest_of
from icae.memory.forms import FORMS
from icae.memory.memory import MemoryContent
from icae.memory.provenance import Provenance
from icae.memory.span import Span


def payload_tensors(memory: MemoryContent) -> dict[str, Description]:
    """Dtype and shape of the tensors that keep the payloads of all spans, in their order."""
    rows: dict[str, int] = defaultdict(int)
    described: dict[str, Description] = {}
    for kind, form in FORMS.items():
        for span in memory.spans:
            if span.kind == kind:
                for name, (dtype, shape) in form.tensors(span.positions, memory.provenance).items():
                    rows[name] += shape[0]
                    described[name] = (dtype, (rows[name], *shape[1:]))
    return described


def span_digest(span: Span, made_by: Provenance, data: Mapping[str, Buffer]) -> str:
    """SHA-256 of the form of a span and of its rows of each tensor."""
    described = FORMS[span.kind].tensors(span.positions, made_by)
    return digest_of(SPAN, span.kind, described, data)
