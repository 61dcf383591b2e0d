from __future__ import annotations

import re
from typing import Any

import pytest

NAMED = re.compile(r'(?:href|src)="([^#"]+)"|from "\./([^"]+)"')


def test_the_address_of_the_server_leads_to_a_page_that_may_load_nothing_from_elsewhere(
    http: Any,
) -> None:
    sent = http.get("/")
    assert sent.status_code == 307
    page = http.get(f"/{sent.headers['location']}")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    directives = page.headers["content-security-policy"].split("; ")
    policy = dict(directive.split(" ", 1) for directive in directives)
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'", "'script'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert page.headers["x-content-type-options"] == "nosniff"


def test_every_file_that_the_page_names_is_there(http: Any) -> None:
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    names, read = ["index.html"], set()
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
def test_there_is_no_other_page(http: Any, path: str) -> None:
    assert http.get(path).status_code == 404


def test_a_file_that_the_browser_has_is_not_sent_again(http: Any) -> None:
    etag = http.get("/playground/main.js").headers["etag"]
    again = http.get("/playground/main.js", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
