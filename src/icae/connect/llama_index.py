"""A LlamaIndex node postprocessor: retrieved nodes are read as one memory of fewer positions."""

from __future__ import annotations

from typing import Any

from icae.config.extras import import_extra
from icae.engine import Engine
from icae.memory import merge

_PURPOSE = "The LlamaIndex postprocessor"
_types: Any = import_extra(
    "llama_index.core.postprocessor.types", purpose=_PURPOSE, extra="llama-index"
)
_schema: Any = import_extra("llama_index.core.schema", purpose=_PURPOSE, extra="llama-index")
_pydantic: Any = import_extra(
    "llama_index.core.bridge.pydantic", purpose=_PURPOSE, extra="llama-index"
)
BaseNodePostprocessor: Any = _types.BaseNodePostprocessor


class MemoryPostprocessor(BaseNodePostprocessor):
    """Compresses the nodes and puts what their memory answers to the query in their place.

    The node that comes back has the ids of those that were read (``nodes``), their ``tokens``
    and the ``positions`` of the memory in its metadata.

    Attributes:
        engine: What compresses and answers: ``icae.load()``.
        ratio: Tokens for each slot, or None for the adapter's own.
        max_new_tokens: Most tokens of the answer.
    """

    engine: Engine = _pydantic.Field(exclude=True)
    ratio: float | None = None
    max_new_tokens: int = 128

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex calls it."""
        return "MemoryPostprocessor"

    def _postprocess_nodes(self, nodes: list[Any], query_bundle: Any = None) -> list[Any]:
        if not nodes or query_bundle is None:
            return nodes
        texts, ids = [one.get_content() for one in nodes], [one.node_id for one in nodes]
        parts = self.engine.compress_many(texts, names=ids, ratio=self.ratio, verify=False)
        memory = merge(parts)
        question = query_bundle.query_str
        answer = self.engine.ask(memory, question, max_new_tokens=self.max_new_tokens)
        told = {"nodes": ids, "tokens": memory.tokens, "positions": memory.positions}
        node = _schema.TextNode(text=answer.text, metadata=told)
        return [_schema.NodeWithScore(node=node, score=nodes[0].score)]
