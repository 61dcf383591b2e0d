"""Against a real HTTP server on 127.0.0.1 (`llm_stub`)."""

from __future__ import annotations

import email.utils
import threading
import time

import pytest

from icae.errors import ConfigError, ServiceError
from icae.pwc.endpoint import FAILED_IN_A_ROW, Endpoint, public_url, retry_after
from llm_stub import Act, llm_stub


@pytest.fixture
def ask(make_requests, make_writer):
    """Run requests against a stub; returns (stub, replies, failures)."""

    def run(decide, count=1, **limits):
        replies = []
        with llm_stub(decide) as stub:
            failures = make_writer(stub.url, **limits).write(
                make_requests(count), record=replies.append
            )
        return stub, replies, failures

    return run


def first(act: Act, then: Act | None = None):
    """The first request gets one thing, all others another."""
    return lambda number: act if number == 0 else then or Act()


def test_every_request_gets_a_reply_with_its_usage(ask, make_requests) -> None:
    stub, replies, failures = ask(lambda n: Act(), 12)
    assert failures == []
    assert {reply.request for reply in replies} == {one.id for one in make_requests(12)}
    assert {(r.prompt_tokens, r.completion_tokens, r.finish) for r in replies} == {
        (100, 40, "stop")
    }
    by_id = {reply.request: reply for reply in replies}
    assert all(len(one.read(by_id[one.id]).pairs) == 4 for one in make_requests(12))
    assert stub.keys[0] == "Bearer secret"
    assert stub.bodies[0]["temperature"] == 0.7
    assert stub.bodies[0]["max_tokens"] == 4096


def test_no_more_requests_are_in_flight_than_allowed(ask) -> None:
    stub, replies, _ = ask(lambda n: Act(stall=0.02), 12, concurrency=3)
    assert len(replies) == 12
    assert 1 < stub.most_in_flight <= 3


@pytest.mark.parametrize(
    "act",
    [
        Act(status=500),
        Act(status=503),
        Act(status=429),
        Act(status=408),
        Act(hang_up=True),
        Act(raw=b"<html>busy</html>", headers={"Content-Type": "text/html"}),
        Act(raw=b'{"choices": ['),
        Act(raw=b'{"choices": []}'),
        Act(raw=b"null"),
    ],
)
def test_attempt_that_failed_is_made_again(ask, act) -> None:
    stub, replies, failures = ask(first(act))
    assert (len(stub.bodies), len(replies), failures) == (2, 1, [])


def test_silent_service_is_given_up_and_asked_again(ask) -> None:
    stub, replies, _ = ask(first(Act(stall=1.0)), timeout=0.1)
    assert (len(stub.bodies), len(replies)) == (2, 1)


def test_pause_that_the_service_asks_for_holds_all_workers(ask) -> None:
    busy = Act(status=429, headers={"Retry-After": "0.4"})
    stub, replies, _ = ask(first(busy, Act(stall=0.05)), 8, concurrency=2)
    assert len(replies) == 8
    refused = stub.times[0]
    early = [moment for moment in stub.times[1:] if moment - refused < 0.35]
    assert len(early) <= 1, "only what was in flight before the pause"


def test_pauses_grow_and_are_spread(ask) -> None:
    stub, _, failures = ask(lambda n: Act(status=500), first_delay=0.05, attempts=4)
    gaps = [b - a for a, b in zip(stub.times, stub.times[1:], strict=False)]
    assert len(gaps) == 3
    assert [gap >= least for gap, least in zip(gaps, (0.025, 0.05, 0.1), strict=True)] == [True] * 3
    assert "4 attempts, the last: " in failures[0].reason


def test_refused_request_is_given_up_at_once_and_the_others_go_on(ask) -> None:
    stub, replies, failures = ask(first(Act(status=400, error={"message": "unfit"})), 5)
    assert (len(stub.bodies), len(replies)) == (5, 4)
    assert "unfit" in failures[0].reason


@pytest.mark.parametrize(
    "act",
    [
        Act(status=401),
        Act(status=404),
        Act(status=429, error={"message": "no money", "code": "insufficient_quota"}),
    ],
)
def test_service_that_refuses_everything_ends_the_run(make_requests, make_writer, act) -> None:
    with llm_stub(lambda n: act) as stub:
        with pytest.raises(ServiceError, match="refuses") as caught:
            make_writer(stub.url).write(make_requests(50), record=lambda reply: None)
        assert len(stub.bodies) <= 8
    assert "secret" not in str(caught.value)


def test_service_that_went_away_ends_the_run_with_advice(make_requests, make_writer) -> None:
    writer = make_writer("http://127.0.0.1:9/v1", attempts=1)
    with pytest.raises(ServiceError, match="does not answer") as caught:
        writer.write(make_requests(3 * FAILED_IN_A_ROW), record=lambda reply: None)
    assert "same command again" in str(caught.value)


def test_requests_in_flight_are_kept_when_the_run_is_stopped(make_requests, make_writer) -> None:
    replies = []

    def record(reply) -> None:
        replies.append(reply)

    with llm_stub(lambda n: Act(status=401) if n == 3 else Act(stall=0.3)) as stub:
        with pytest.raises(ServiceError):
            make_writer(stub.url).write(make_requests(40), record=record)
        assert len(replies) == len(stub.answered) >= 3, "paid for, so kept"


def test_pace_of_requests_is_kept(ask) -> None:
    stub, replies, _ = ask(lambda n: Act(), 6, requests_per_minute=1200)
    assert len(replies) == 6
    assert stub.times[-1] - stub.times[0] >= 5 * 0.05 * 0.6


def test_pace_of_tokens_is_kept_by_what_replies_took(ask) -> None:
    stub, _, _ = ask(lambda n: Act(), 4, tokens_per_minute=120_000, concurrency=1)
    assert stub.times[-1] - stub.times[0] >= 3 * 140 * 60 / 120_000 * 0.6


def test_time_to_wait_is_read_in_all_its_forms() -> None:
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert retry_after({"retry-after": "2"}) == 2
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after": "-3"}) == 0
    assert 25 < (retry_after({"retry-after": soon}) or 0) <= 30
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_address_is_written_down_without_secrets() -> None:
    assert public_url("https://me:pw@host:8/v1?key=x#y") == "https://host:8/v1"


@pytest.mark.parametrize("url", ["", "localhost:8000/v1", "ftp://x/v1", "http://"])
def test_what_is_no_address_is_refused(url) -> None:
    with pytest.raises(ConfigError, match="no URL"):
        Endpoint(url=url, model="m", api_key="k")


def test_no_thread_stays_behind(ask) -> None:
    ask(lambda n: Act(), 4)
    assert not [one for one in threading.enumerate() if one.name.startswith("pwc")]
