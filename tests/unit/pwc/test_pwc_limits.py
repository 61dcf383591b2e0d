from __future__ import annotations

import threading

import pytest

from icae.errors import ConfigError
from icae.pwc.limits import Limits, Pace, StoppedError


class Time:
    """A clock that waiting moves on; also the stop event that waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False

    def is_set(self) -> bool:
        return False


@pytest.fixture
def starts():
    """When requests of so many tokens start, in seconds from the first moment."""

    def run(tokens, **limits):
        time = Time()
        pace = Pace(Limits(**limits), time, clock=time)
        found = []
        for count in tokens:
            pace.start(count)
            found.append(round(time.now - 100, 6))
        return found

    return run


def test_without_limits_nothing_waits(starts) -> None:
    assert starts([10**6] * 3) == [0, 0, 0]


def test_requests_are_spaced_evenly_over_the_minute(starts) -> None:
    assert starts([1] * 4, requests_per_minute=30) == [0, 2, 4, 6]


def test_tokens_of_one_request_delay_the_next(starts) -> None:
    assert starts([600, 1200, 1], tokens_per_minute=600) == [0, 60, 180]


def test_stricter_limit_counts(starts) -> None:
    limits = {"requests_per_minute": 60, "tokens_per_minute": 600}
    assert starts([1, 30, 1], **limits) == [0, 1, 4]


def test_tokens_that_a_reply_did_not_take_are_given_back() -> None:
    time = Time()
    pace = Pace(Limits(tokens_per_minute=600), time, clock=time)
    pace.start(600)
    pace.settle(expected=600, taken=100)
    pace.start(1)
    assert time.now == pytest.approx(110)


def test_pause_holds_the_next_start_and_the_longest_counts() -> None:
    time = Time()
    pace = Pace(Limits(), time, clock=time)
    pace.pause(30)
    pace.pause(5)
    pace.start(1)
    assert time.now == 130


def test_stop_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    pace = Pace(Limits(), stop)
    stop.set()
    with pytest.raises(StoppedError):
        pace.wait(600)
    with pytest.raises(StoppedError):
        pace.start(1)


def test_delays_double_up_to_a_limit_and_jitter_takes_up_to_half() -> None:
    limits = Limits(first_delay=1, longest_delay=10)
    assert [limits.delay(n, jitter=1.0) for n in (1, 2, 3, 4, 5, 99)] == [1, 2, 4, 8, 10, 10]
    assert limits.delay(3, jitter=0.0) == 2


@pytest.mark.parametrize("values", [{"concurrency": 0}, {"timeout": 0}, {"tokens_per_minute": -1}])
def test_limits_out_of_range_are_refused(values) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        Limits(**values)
