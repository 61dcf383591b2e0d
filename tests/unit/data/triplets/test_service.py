"""Against a real HTTP server on 127.0.0.1 (`llm_stub`)."""

import email.utils
import threading
import time
from email.message import Message

import pytest

from icae.data.triplets.service import (
    FAILED_IN_A_ROW,
    Pace,
    ServiceConfig,
    ServiceWriter,
    retry_after,
)
from icae.errors import ConfigError, ServiceError
from llm_stub import Act, llm_stub


def make_config(url="http://x/v1", **limits):
    settings = {"api_key": "secret", "first_delay": 0.01, "timeout": 5.0, "concurrency": 4}
    return ServiceConfig(url=url, model="m", **{**settings, **limits})


@pytest.fixture
def ask(make_requests):
    """Run requests against a stub; returns (stub, replies, failures)."""

    def run(decide, count=1, **limits):
        replies = []
        with llm_stub(decide) as stub:
            writer = ServiceWriter(make_config(stub.url, **limits))
            failures = writer.write(make_requests(count), replies.append)
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
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("m", 0.7, 4096)
    assert not [one for one in threading.enumerate() if one.name.startswith("service")]


def test_no_more_requests_are_in_flight_than_allowed(ask):
    stub, replies, _ = ask(lambda n: Act(stall=0.02), 12, concurrency=3)
    assert len(replies) == 12
    assert 1 < stub.most_in_flight <= 3


@pytest.mark.parametrize(
    "act",
    [
        *(Act(status=status) for status in (500, 503, 429, 408)),
        Act(hang_up=True),
        Act(raw=b"<html>busy</html>", headers={"Content-Type": "text/html"}),
        Act(raw=b'{"choices": ['),
        Act(raw=b'{"choices": []}'),
        Act(raw=b"null"),
        Act(status=500, raw=b"no JSON"),
    ],
)
def test_attempt_that_failed_is_made_again(ask, act):
    stub, replies, failures = ask(first(act))
    assert (len(stub.bodies), len(replies), failures) == (2, 1, {})


def test_silent_service_is_given_up_and_asked_again(ask):
    stub, replies, _ = ask(first(Act(stall=1.0)), timeout=0.1)
    assert (len(stub.bodies), len(replies)) == (2, 1)


def test_request_without_any_reply_is_given_up_with_the_last_reason(ask):
    stub, _, failures = ask(lambda n: Act(status=500, error={"message": "boom"}), attempts=4)
    assert len(stub.bodies) == 4
    (reason,) = failures.values()
    assert "4 attempts, the last: Error code: 500 - boom" in reason


def test_refused_request_is_given_up_at_once_and_the_others_go_on(ask):
    stub, replies, failures = ask(first(Act(status=400, error={"message": "unfit"})), 5)
    assert (len(stub.bodies), len(replies)) == (5, 4)
    assert "unfit" in next(iter(failures.values()))


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
            ServiceWriter(make_config(stub.url)).write(make_requests(50), lambda reply: None)
        assert len(stub.bodies) <= 8
    assert "secret" not in str(caught.value)


def test_service_that_went_away_ends_the_run_with_advice(make_requests):
    writer = ServiceWriter(make_config("http://127.0.0.1:9/v1", attempts=1))
    with pytest.raises(ServiceError, match=r"does not answer(.|\n)*same command again"):
        writer.write(make_requests(3 * FAILED_IN_A_ROW), lambda reply: None)


def test_requests_in_flight_are_kept_when_the_run_is_stopped(make_requests):
    replies = []
    with llm_stub(lambda n: Act(status=401) if n == 3 else Act(stall=0.3)) as stub:
        with pytest.raises(ServiceError):
            ServiceWriter(make_config(stub.url)).write(make_requests(40), replies.append)
        assert len(replies) == len(stub.answered) >= 3, "paid for, so kept"


def test_pause_that_the_service_asks_for_holds_all_workers(ask, monkeypatch):
    pauses = []
    monkeypatch.setattr(Pace, "pause", lambda self, seconds: pauses.append(seconds))
    ask(first(Act(status=429, headers={"Retry-After": "0.4"})))
    assert pauses == [0.4]


class Clock:
    """A clock that waiting moves on; also the stop event that waits."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds

    def is_set(self):
        return False


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(
    ("tokens", "limits", "starts"),
    [
        ([10**6] * 3, {}, [0, 0, 0]),
        ([1] * 4, {"requests_per_minute": 30}, [0, 2, 4, 6]),
        ([600, 1200, 1], {"tokens_per_minute": 600}, [0, 60, 180]),
        ([1, 30, 1], {"requests_per_minute": 60, "tokens_per_minute": 600}, [0, 1, 4]),
    ],
)
def test_requests_start_no_faster_than_the_limits_allow(clock, tokens, limits, starts):
    pace = Pace(make_config(**limits), clock, clock=clock)
    found = []
    for count in tokens:
        pace.start(count)
        found.append(round(clock.now - 100, 6))
    assert found == starts


def test_tokens_that_a_reply_did_not_take_are_given_back(clock):
    pace = Pace(make_config(tokens_per_minute=600), clock, clock=clock)
    pace.start(600)
    pace.settle(expected=600, taken=100)
    pace.start(1)
    assert clock.now == pytest.approx(110)


def test_longest_pause_counts_and_delays_double_up_to_a_limit(clock):
    pace = Pace(make_config(first_delay=1, longest_delay=10), clock, clock=clock)
    pace.pause(30)
    pace.pause(5)
    pace.start(1)
    assert clock.now == 130, "whoever starts waits"
    for attempt, longest in ((1, 1), (2, 2), (4, 8), (5, 10), (99, 10)):
        before = clock.now
        pace.back_off(attempt)
        assert longest / 2 <= clock.now - before <= longest


def test_time_to_wait_is_read_in_all_its_forms():
    def read(**said):
        headers = Message()
        for name, value in said.items():
            headers[name.replace("_", "-")] = value
        return retry_after(headers)

    assert read(retry_after="2") == 2
    assert read(retry_after_ms="1500", retry_after="9") == 1.5
    assert read(retry_after="-3") == 0
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < (read(Retry_After=soon) or 0) <= 30
    assert read(retry_after="soon") == read() == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(({"url": url}, "no URL") for url in ("", "localhost:8000/v1", "ftp://x/v1", "http://")),
        ({"url": "http://me:pw@x/v1"}, "without user"),
        ({"max_tokens": 0}, r"service\.max_tokens is out"),
        ({"temperature": 3}, r"service\.temperature is out"),
        ({"concurrency": 0}, r"service\.concurrency is out"),
        ({"timeout": 0}, r"service\.timeout is out"),
        ({"tokens_per_minute": -1}, r"service\.tokens_per_minute is out"),
    ],
)
def test_settings_out_of_range_are_refused_without_the_key(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_config(**values)
    assert "secret" not in str(caught.value)
    assert "pw" not in str(caught.value)
