from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

NAMED = re.compile(r'(?:href|src)="([^#"]+)"|from "\./([^"]+)"')


def test_the_address_of_the_server_leads_to_a_page_that_may_load_nothing_from_elsewhere(
    shared: Any,
) -> None:
    with shared.client() as http:
        sent = http.get("/")
        assert sent.status_code == 307
        page = http.get(f"/{sent.headers['location']}")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        directive.split(" ", 1) for directive in page.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'", "'script'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert page.headers["x-content-type-options"] == "nosniff"


def test_every_file_that_the_page_names_is_there(shared: Any) -> None:
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    names, read = ["index.html"], set()
    with shared.client() as http:
        while names:
            name = names.pop()
            if name in read:
                continue
            read.add(name)
            sent = http.get(f"/playground/{name}")
            assert sent.status_code == 200, name
            kind = name.rpartition(".")[2]
            assert sent.headers["content-type"].startswith(types.get(kind, "text/html"))
            names += [href or module for href, module in NAMED.findall(sent.text)]
    assert {"main.js", "api.js", "base.css", "icon.svg"} <= read


@pytest.mark.parametrize("path", ["/playground/none.js", "/playground/a/b.js", "/docs", "/redoc"])
def test_there_is_no_other_page(shared: Any, path: str) -> None:
    with shared.client() as http:
        assert http.get(path).status_code == 404


def test_a_file_that_the_browser_has_is_not_sent_again(shared: Any) -> None:
    with shared.client() as http:
        first = http.get("/playground/main.js")
        again = http.get("/playground/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_needs_no_key_since_it_asks_for_one(
    serve: Callable[..., Any], two_keys: tuple[Any, str, str]
) -> None:
    with serve(keys=two_keys[0]).client() as http:
        assert http.get("/playground/").status_code == 200
        assert http.get("/v1/memories").status_code == 401
