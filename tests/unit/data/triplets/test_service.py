"""Against a real HTTP server on 127.0.0.1 (`llm_stub`)."""

import sys
import threading

import pytest

from icae.data.triplets.service import FAILED_IN_A_ROW, ChatService, ServiceWriter
from icae.errors import ConfigError, MissingDependencyError, ServiceError
from llm_stub import Act, llm_stub

pytest.importorskip("openai")

SOON = {"retry-after-ms": "10"}


def make_writer(url="http://x/v1", **limits):
    settings = {"api_key": "secret", "timeout": 5.0, "concurrency": 4, "max_tokens": 4096}
    chat = ChatService(**{"url": url, "model": "m", **settings, **limits})
    return ServiceWriter(chat, asks=3)


@pytest.fixture
def ask(make_requests):
    """Run requests against a stub; returns (stub, replies, failures)."""

    def run(decide, count=1, **limits):
        replies = []
        with llm_stub(decide) as stub:
            failures = make_writer(stub.url, **limits).write(make_requests(count), replies.append)
        return stub, replies, failures

    return run


def first(act, then=None):
    """The first request gets one thing, all others another."""
    return lambda number: act if number == 0 else then or Act()


def test_every_request_gets_a_reply_with_its_usage(ask, make_requests):
    stub, replies, failures = ask(lambda n: Act(), 12)
    assert failures == {}
    by_id = {reply.request: reply for reply in replies}
    assert {(r.prompt_tokens, r.completion_tokens, r.finish) for r in replies} == {
        (100, 40, "stop")
    }
    for request in make_requests(12):
        assert [pair.flaw for pair in request.read(by_id[request.id])] == [None] * 4
    assert stub.keys[0] == "Bearer secret"
    sent = stub.bodies[0]
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("m", 0, 4096)
    assert not [one for one in threading.enumerate() if one.name.startswith("service")]


def test_no_more_requests_are_in_flight_than_allowed(ask):
    stub, replies, _ = ask(lambda n: Act(stall=0.02), 12, concurrency=3)
    assert len(replies) == 12
    assert 1 < stub.most_in_flight <= 3


@pytest.mark.parametrize("status", [500, 429, 408])
def test_attempt_that_failed_is_made_again(ask, status):
    stub, replies, failures = ask(first(Act(status=status, headers=SOON)))
    assert (len(stub.bodies), len(replies), failures) == (2, 1, {})


def test_silent_service_is_given_up_and_asked_again(ask):
    stub, replies, _ = ask(first(Act(stall=1.0)), timeout=0.1)
    assert (len(stub.bodies), len(replies)) == (2, 1)


def test_request_without_any_reply_is_given_up_with_the_last_reason(ask):
    boom = Act(status=500, error={"message": "boom"}, headers=SOON)
    stub, _, failures = ask(lambda n: boom, attempts=4)
    assert len(stub.bodies) == 4
    assert "boom" in next(iter(failures.values()))


@pytest.mark.parametrize(
    "act",
    [
        Act(status=400, error={"message": "unfit"}),
        *(Act(raw=raw) for raw in (b"not json", b'{"choices": []}', b"null")),
        Act(raw=b"<html>busy</html>", headers={"Content-Type": "text/html"}),
    ],
)
def test_refused_or_damaged_is_given_up_at_once_and_the_others_go_on(ask, act):
    stub, replies, failures = ask(first(act), 5)
    assert (len(stub.bodies), len(replies), len(failures)) == (5, 4, 1)


@pytest.mark.parametrize(
    "act",
    [
        Act(status=401),
        Act(status=404),
        Act(status=429, error={"message": "no money", "code": "insufficient_quota"}),
    ],
)
def test_service_that_refuses_everything_ends_the_run(make_requests, act):
    with llm_stub(lambda n: act) as stub:
        with pytest.raises(ServiceError, match="refuses") as caught:
            make_writer(stub.url, attempts=1).write(make_requests(50), lambda reply: None)
        assert len(stub.bodies) <= 8
    assert "secret" not in str(caught.value)


def test_service_that_went_away_ends_the_run_with_advice(make_requests):
    writer = make_writer("http://127.0.0.1:9/v1", attempts=1)
    with pytest.raises(ServiceError, match=r"does not answer(.|\n)*same command again"):
        writer.write(make_requests(3 * FAILED_IN_A_ROW), lambda reply: None)


def test_requests_in_flight_are_kept_when_the_run_is_stopped(make_requests):
    replies = []
    with llm_stub(lambda n: Act(status=401) if n == 3 else Act(stall=0.3)) as stub:
        with pytest.raises(ServiceError):
            make_writer(stub.url, attempts=1).write(make_requests(40), replies.append)
        assert len(replies) == len(stub.answered) >= 3, "paid for, so kept"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(({"url": url}, "no URL") for url in ("", "localhost:8000/v1", "ftp://x/v1", "http://")),
        ({"url": "http://me:pw@x/v1"}, "without user"),
        ({"max_tokens": 0}, r"service\.max_tokens is out"),
        ({"temperature": 3}, r"service\.temperature is out"),
        ({"concurrency": 0}, r"service\.concurrency is out"),
        ({"timeout": 0}, r"service\.timeout is out"),
        ({"model": ""}, "no model"),
    ],
)
def test_settings_out_of_range_are_refused_without_the_key(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_writer(**values)
    assert "secret" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_without_the_client_the_extra_is_named(monkeypatch, make_requests):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match="needs openai"):
        make_writer().write(make_requests(1), print)
