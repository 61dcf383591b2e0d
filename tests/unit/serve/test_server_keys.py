from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from icae.errors import ConfigError
from icae.serve.keys import Keys, add_key
from icae.serve.listening import check_public


def test_a_key_sees_and_uses_its_own_memories_alone(serve: Any, two_keys: Any) -> None:
    keys, anna, ben = two_keys
    server = serve(keys=keys)
    own = server.make_memory(key=anna)
    asked = {"model": "tiny", "messages": server.about(own["id"])}
    url = f"/v1/memories/{own['id']}"

    with server.client(ben) as http:
        assert http.get("/v1/memories").json()["data"] == []
        refused = [
            http.get(url),
            http.get(f"{url}/spans"),
            http.get(f"{url}/file"),
            http.post(f"{url}/append", json={"text": "more"}),
            http.delete(url),
            http.post("/v1/chat/completions", json=asked),
        ]
        unknown = http.get("/v1/memories/mem_" + "0" * 24)
    assert {response.status_code for response in refused} == {404}
    for response in refused:  # in the words for an id that nobody has
        told = response.json()["error"]["message"].replace(own["id"], "ID")
        assert told == unknown.json()["error"]["message"].replace("mem_" + "0" * 24, "ID")
    assert server.ask(own["id"], key=anna)


def test_every_endpoint_but_health_and_the_page_needs_a_key(serve: Any, two_keys: Any) -> None:
    server = serve(keys=two_keys[0])
    with server.client() as http:
        assert http.get("/health").status_code == http.get("/playground/").status_code == 200
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/v1/memories"),
            ("POST", "/v1/memories"),
            ("POST", "/v1/memories/import"),
            ("POST", "/v1/chat/completions"),
            ("GET", "/metrics"),
        ):
            refused = http.request(method, path)
            assert refused.status_code == 401, path
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert refused.json()["error"]["type"] == "authentication_error"


def test_a_key_file_holds_hashes_that_others_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    old, new = add_key(path, "anna"), add_key(path, "anna")  # both own the same memories
    assert old not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = Keys.load(path)
    assert keys.owner(f"Bearer {old}") == keys.owner(f"bearer {new}") == "anna"


@pytest.mark.parametrize("content", ["", "# none\n", "anna nothash\n", "../x " + "a" * 64, "\xff"])
def test_a_key_file_without_keys_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError):
        Keys.load(path)


@pytest.mark.parametrize("name", ["", "Anna", "a/b", "../a", "a b", "a" * 65])
def test_a_name_that_could_reach_into_another_owner_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        add_key(tmp_path / "keys.txt", name)


def test_a_server_without_keys_listens_on_this_machine_alone(two_keys: Any) -> None:
    check_public("127.0.0.1", Keys())
    check_public("0.0.0.0", two_keys[0])
    with pytest.raises(ConfigError, match="this machine alone"):
        check_public("0.0.0.0", Keys())


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}],
)
def test_without_keys_a_page_of_another_site_is_refused(http: Any, headers: Any) -> None:
    assert http.get("/v1/models", headers={"Origin": "http://localhost:3000"}).is_success
    refused = http.get("/v1/models", headers=headers)
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "not_local"
