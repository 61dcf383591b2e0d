from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.routing import Route

from icae.serve.app import make_app
from icae.serve.openapi import openapi_document


def test_the_document_names_exactly_the_routes_of_the_server(serve: Callable[..., Any]) -> None:
    server = serve()
    app = make_app(server.service, local_only=False)
    routes = {
        (route.path.replace(":path", ""), method)
        for route in app.routes
        if isinstance(route, Route) and route.include_in_schema
        for method in (route.methods or set()) - {"HEAD"}
    }
    paths = openapi_document()["paths"]
    verbs = {"get", "post", "put", "patch", "delete"}
    described = {(path, verb.upper()) for path in paths for verb in verbs & set(paths[path])}
    assert described == routes
    with server.client() as http:
        assert http.get("/openapi.json").json() == openapi_document()


def test_every_reference_in_the_document_leads_somewhere() -> None:
    document = openapi_document()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [ref for one in value.values() for ref in references(one)]
        return [ref for one in value for ref in references(one)] if isinstance(value, list) else []

    for reference in references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
