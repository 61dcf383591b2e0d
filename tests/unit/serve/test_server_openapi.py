from __future__ import annotations

from typing import Any


def test_the_document_names_every_operation_with_its_bodies(http: Any) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    operations = {one["operationId"]: one for path in paths.values() for one in path.values()}
    free = [name for name, one in operations.items() if "security" not in one]
    assert free == ["health", "livez", "readyz"]
    bodies = {
        name: set(one["requestBody"]["content"])
        for name, one in operations.items()
        if "requestBody" in one
    }
    assert bodies == {
        "chat": {"application/json"},
        "complete": {"application/json"},
        "append_memory": {"application/json"},
        "edit_memory": {"application/json"},
        "create_memory": {"application/json", "multipart/form-data"},
        "import_memory": {"application/octet-stream"},
    }
    others = {
        "health",
        "livez",
        "readyz",
        "metrics",
        "models",
        "model",
        "list_memories",
        "get_memory",
    }
    others |= {"delete_memory", "memory_spans", "memory_file"}
    assert operations.keys() - bodies == others
    for one in operations.values():
        assert one["responses"]["4XX"]["content"]["application/json"]["schema"]
        assert "422" not in one["responses"]
