"""A LangChain retriever over a store: the passages whose words match a question best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icae.config.extras import import_extra
from icae.store import open_store

_PURPOSE = "The LangChain retriever"
BaseRetriever: Any = import_extra(
    "langchain_core.retrievers", purpose=_PURPOSE, extra="langchain"
).BaseRetriever
Document: Any = import_extra(
    "langchain_core.documents", purpose=_PURPOSE, extra="langchain"
).Document


class StoreRetriever(BaseRetriever):
    """Passages of a store's kept texts; needs no model.

    Attributes:
        store: The store's file.
        k: Most passages.
    """

    store: Path
    k: int = 4

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Any]:
        with open_store(self.store) as store:
            hits = store.search(query, limit=self.k)
        return [
            Document(
                page_content=hit.text,
                metadata={
                    "source": hit.document,
                    "key": hit.key,
                    "char_start": hit.char_start,
                    "char_end": hit.char_end,
                    "score": hit.score,
                },
            )
            for hit in hits
        ]
