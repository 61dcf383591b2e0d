"""Requests made from the OpenAPI document, valid and not, get what the document says.

``ICAE_FUZZ_EXAMPLES=200 python -m pytest tests/unit/serve/test_server_fuzz.py``
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks

EXAMPLES = int(os.environ.get("ICAE_FUZZ_EXAMPLES", "6"))
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
TAKES_ANYTHING = ("health", "metrics", "models", "model")
"""Operations of which no request is wrong."""

OPERATIONS = (
    "chat",
    "complete",
    "create_memory",
    "list_memories",
    "import_memory",
    "get_memory",
    "delete_memory",
    "append_memory",
    "edit_memory",
    "memory_spans",
    "memory_file",
)
REQUESTS = [
    *((one, GenerationMode.POSITIVE) for one in (*TAKES_ANYTHING, *OPERATIONS)),
    *((one, GenerationMode.NEGATIVE) for one in OPERATIONS),
]


def aimed(case: Any, memory_id: str) -> Any:
    """A request that gets past the names: for the model and the memory that are there."""
    if "id" in (case.path_parameters or {}) and case.method != "DELETE":
        case.path_parameters["id"] = memory_id
    if isinstance(case.body, dict) and "model" in case.body:
        case.body |= {"model": "tiny", "max_tokens": 3, "max_completion_tokens": None}
    return case


@pytest.mark.slow
@pytest.mark.parametrize(("operation_id", "mode"), REQUESTS)
def test_requests_made_from_the_document_get_what_it_says(
    shared: Any, operation_id: str, mode: GenerationMode
) -> None:
    load_all_checks()
    checks = schemathesis.checks.CHECKS.get_by_names(list(CHECKED))
    memory_id = shared.make_memory()["id"]
    with shared.client() as http:
        document = http.get("/openapi.json").json()
    operation = schemathesis.openapi.from_dict(document).find_operation_by_id(operation_id)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        for one in (case, aimed(case, memory_id)):
            one.call_and_validate(base_url=shared.url, checks=checks, timeout=60)

    check()
    with shared.client() as http:
        assert http.get("/health").status_code == 200
