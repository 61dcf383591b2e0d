from __future__ import annotations

from typing import Any


def test_the_document_names_every_operation_with_its_bodies(shared: Any) -> None:
    with shared.client() as http:
        document = http.get("/openapi.json").json()
    operations = {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
    }
    needs_no_key = {name for name, one in operations.items() if "security" not in one}
    assert needs_no_key == {"health"}
    bodies = {
        name: set(one["requestBody"]["content"])
        for name, one in operations.items()
        if "requestBody" in one
    }
    assert bodies == {
        "chat": {"application/json"},
        "append_memory": {"application/json"},
        "create_memory": {"application/json", "multipart/form-data"},
        "import_memory": {"application/octet-stream"},
    }
    others = {"metrics", "models", "model", "list_memories", "get_memory", "delete_memory"}
    assert set(operations) - set(bodies) - needs_no_key == {*others, "memory_spans", "memory_file"}
    for one in operations.values():
        assert one["responses"]["4XX"]["content"]["application/json"]["schema"]
        assert "422" not in one["responses"]
