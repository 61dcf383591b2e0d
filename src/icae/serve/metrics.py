"""What the server counts, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_ROWS = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one server, apart from those of any other in the process; each says what."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.requests = Counter("icae_requests", "Responses.", ["endpoint", "status"], registry=own)
        self.seconds = Histogram(
            "icae_request_seconds", "To the end.", ["endpoint"], buckets=_SECONDS, registry=own
        )
        self.waiting = Gauge("icae_chats_waiting", "Chats that wait.", registry=own)
        self.writing = Gauge("icae_chats_answered", "Answers being written.", registry=own)
        self.documents = Gauge("icae_documents_in_work", "Documents in work.", registry=own)
        self.together = Histogram(
            "icae_answers_together", "Answers of one batch.", buckets=_ROWS, registry=own
        )
        self.answer_tokens = Counter("icae_answer_tokens", "Tokens written.", registry=own)
        self.prompt_tokens = Counter("icae_prompt_tokens", "Positions read.", registry=own)
        self.queued = Histogram(
            "icae_queue_seconds", "Chats: until taken.", buckets=_SECONDS, registry=own
        )
        self.first_token = Histogram(
            "icae_first_token_seconds", "Chats: to a token.", buckets=_SECONDS, registry=own
        )
        self.store_errors = Counter("icae_store_errors", "Failures of the store.", registry=own)
        self.context_tokens = Counter("icae_context_tokens", "Tokens compressed.", registry=own)

    def text(self) -> bytes:
        """All of them, as Prometheus reads it."""
        return generate_latest(self._registry)
