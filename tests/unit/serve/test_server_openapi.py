from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_the_document_names_every_operation_with_its_bodies(serve: Callable[..., Any]) -> None:
    with serve().client() as http:
        document = http.get("/openapi.json").json()
    operations = {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
    }
    assert set(operations) == {
        "health",
        "metrics",
        "models",
        "model",
        "chat",
        "create_memory",
        "list_memories",
        "import_memory",
        "get_memory",
        "delete_memory",
        "append_memory",
        "memory_spans",
        "memory_file",
    }
    bodies = {
        name: set(operation["requestBody"]["content"])
        for name, operation in operations.items()
        if "requestBody" in operation
    }
    assert bodies == {
        "chat": {"application/json"},
        "append_memory": {"application/json"},
        "create_memory": {"application/json", "multipart/form-data"},
        "import_memory": {"application/octet-stream"},
    }
    open_to_all = {name for name, operation in operations.items() if "security" not in operation}
    assert open_to_all == {"health"}
    for operation in operations.values():
        assert operation["responses"]["4XX"]["content"]["application/json"]["schema"]
        assert "422" not in operation["responses"]


def test_no_page_of_the_server_loads_scripts_from_elsewhere(serve: Callable[..., Any]) -> None:
    with serve().client() as http:
        assert {http.get(path).status_code for path in ("/docs", "/redoc")} == {404}
