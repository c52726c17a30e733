"""LimitEstimator: a limit out of samples, with no clock and no event loop."""

from __future__ import annotations

import pytest

from mtaio.resilience._estimate import LEAST_SAMPLES, MOST_SAMPLES, WINDOW, LimitEstimator


class Service:
    """
    A service that is always asked for as much as the limit lets through, and takes no chances.

    Args:
        knee: How many calls it works on at once; the others wait.
        seconds: What a call takes, without the wait.
    """

    def __init__(self, knee: int = 10, seconds: float = 0.05, limit: int = 10) -> None:
        self.knee = knee
        self.seconds = seconds
        self.estimator = LimitEstimator(limit, 1, 200)
        self.moment = 0.0
        self.lowest = limit

    def call(self, *, in_flight: int | None = None, failed: bool = False) -> None:
        """End one call."""
        busy = self.estimator.limit if in_flight is None else in_flight
        self.moment += self.seconds / min(busy, self.knee)
        latency = self.seconds * max(1.0, busy / self.knee)
        self.estimator.sample(self.moment, latency, busy, failed=failed)
        self.lowest = min(self.lowest, self.estimator.limit)

    def run(self, seconds: float, *, in_flight: int | None = None) -> LimitEstimator:
        """End calls for a time, in which the lowest limit is noted."""
        until = self.moment + seconds
        self.lowest = self.estimator.limit
        while self.moment < until:
            self.call(in_flight=in_flight)
        return self.estimator


def feed(estimator: LimitEstimator, moment: float, latency: float, in_flight: int) -> float:
    """Fill one window, and return when it ended."""
    while not estimator.sample(moment, latency, in_flight):
        moment += 0.02
    return moment


@pytest.mark.parametrize("knee", [1, 3, 10, 100])
def test_limit_settles_where_a_short_queue_keeps_all_workers_busy(knee: int) -> None:
    """It is above what the service works on at once, and not by far."""
    limit = Service(knee).run(60).limit
    assert knee < limit <= 2 * knee + 2


def test_limit_does_not_drift() -> None:
    """Ten minutes of overload leaves it where half a minute has brought it."""
    service = Service()
    early = service.run(30).estimate
    assert service.run(600).estimate == pytest.approx(early, rel=0.02)
    assert service.estimator.baseline == pytest.approx(0.05, rel=0.1)


def test_start_measures_the_baseline_below_the_first_limit() -> None:
    """A first limit that is far too high is lowered until latency falls no more."""
    service = Service(knee=3, limit=60)
    estimator = service.run(20)
    assert estimator.probes == 1
    assert estimator.baseline == pytest.approx(0.05, rel=0.01)
    assert 3 < estimator.limit <= 8


@pytest.mark.parametrize("slower", [3, 10])
def test_slower_service_has_a_new_baseline(slower: int) -> None:
    """It takes longer for each call, not more calls: the limit is soon what it was."""
    service = Service()
    before = service.run(30).estimate
    service.seconds *= slower
    estimator = service.run(30 * slower)
    assert estimator.probes == 2
    assert service.lowest >= 5
    assert estimator.estimate == pytest.approx(before, rel=0.1)
    assert estimator.baseline == pytest.approx(0.05 * slower, rel=0.1)


def test_faster_service_has_a_lower_baseline() -> None:
    """And soon: a baseline that is too high is what lets a queue grow."""
    service = Service(seconds=0.5)
    service.run(60)
    service.seconds = 0.05
    estimator = service.run(10)
    assert estimator.baseline == pytest.approx(0.05, rel=0.1)
    assert estimator.probes == 2
    assert estimator.limit <= 20


def test_service_that_loses_workers_has_a_lower_limit() -> None:
    """Latency then falls with the limit, which shows that it was a queue."""
    service = Service()
    service.run(30)
    service.knee = 5
    estimator = service.run(60)
    assert 5 < estimator.limit <= 12
    assert estimator.baseline == pytest.approx(0.05, rel=0.2)


def test_service_that_becomes_slower_little_by_little_does_not_shut_the_limit() -> None:
    """No window shows it, so the limit falls; once far enough, the baseline gives way."""
    service = Service()
    service.run(30)
    for _ in range(300):
        service.seconds *= 1.005
        service.run(0.5)
    estimator = service.run(30)
    assert estimator.baseline > 0.1
    assert estimator.limit >= 10


def test_suspicion_that_is_not_confirmed_changes_nothing() -> None:
    """One slow window makes the limit stand still, and is forgotten."""
    service = Service()
    before = service.run(30).limit
    probes = service.estimator.probes
    service.seconds *= 4
    service.run(0.6)
    service.seconds /= 4
    assert service.run(20).probes == probes
    assert service.estimator.limit == before


@pytest.mark.parametrize("latency", [0.005, 0.05, 5.0])
def test_limit_of_which_little_is_used_stands_still(latency: float) -> None:
    """Whatever latency does: it can only be the service's own, as far as one can see."""
    estimator = LimitEstimator(10, 1, 200)
    moment = feed(estimator, 0.0, 0.05, 4)
    for _ in range(100):
        moment = feed(estimator, moment, latency, 4)
    assert estimator.limit == 10
    assert estimator.probes == 0
    assert estimator.baseline == pytest.approx(latency, rel=0.05)


def test_limit_grows_only_where_it_is_nearly_reached() -> None:
    """Half of it in flight is enough for it to fall, and not enough for it to grow."""
    estimator = LimitEstimator(10, 1, 200)
    moment = feed(estimator, 0.0, 0.05, 4)
    for _ in range(10):
        moment = feed(estimator, moment, 0.05, 6)
    assert estimator.limit == 10
    feed(estimator, moment, 0.05, 8)
    assert estimator.limit > 10


def test_limit_stays_between_its_bounds() -> None:
    """However good or bad it looks."""
    estimator = LimitEstimator(10, 8, 12)
    moment = feed(estimator, 0.0, 0.05, 1)
    for _ in range(20):
        moment = feed(estimator, moment, 0.05, estimator.limit)
    assert estimator.limit == 12
    for _ in range(20):
        moment += 1
        for _ in range(100):
            estimator.sample(moment, 0.001, 12, failed=True)
    assert estimator.limit == 8


def test_some_failures_lower_the_limit_by_half_their_share() -> None:
    """A few are borne: the limit settles where growth makes up for them."""
    few, many = Service(), Service()
    for number in range(20_000):
        few.call(failed=number % 50 == 0)
        many.call(failed=number % 2 == 0)
    assert few.estimator.limit > 10
    assert many.estimator.limit <= 3


def test_call_that_fails_at_once_says_nothing_of_latency() -> None:
    """One that took longer than the baseline does: it is the least an answer would have taken."""
    estimator = LimitEstimator(10, 1, 200)
    moment = feed(estimator, 0.0, 0.05, 1)
    for number in range(60):
        estimator.sample(moment + number / 50, 0.001 if number % 2 else 0.2, 9, failed=True)
    assert estimator.latency == pytest.approx(0.2)
    assert estimator.baseline == pytest.approx(0.05)


def test_timeouts_are_no_baseline() -> None:
    """Where nothing is answered, a probe shows the caller's timeout, and no more."""
    service = Service()
    baseline = service.run(30).baseline
    estimator = service.estimator
    moment = service.moment
    for _ in range(3000):
        moment += 0.02
        estimator.sample(moment, 1.0, estimator.limit, failed=True)
    assert estimator.baseline == baseline
    assert estimator.limit == 1
    service.moment = moment
    assert service.run(20).limit >= 15


def test_timeouts_alone_are_no_baseline_to_begin_with() -> None:
    """The limit goes down until something is answered."""
    estimator = LimitEstimator(10, 1, 200)
    moment = 0.0
    for _ in range(600):
        moment += 0.02
        estimator.sample(moment, 1.0, estimator.limit, failed=True)
    assert (estimator.limit, estimator.baseline) == (1, 0.0)
    for _ in range(600):
        moment += 0.02
        estimator.sample(moment, 1.0, 1, failed=True)


def test_window_has_as_many_samples_as_their_spread_asks_for() -> None:
    """Ten of a kind are enough; where one call in ten takes long, it takes many."""

    def samples(*latencies: float) -> int:
        estimator = LimitEstimator(10, 1, 200)
        moment, number, windows, last = 0.0, 0, 0, 0
        while windows < 60:
            moment += WINDOW / LEAST_SAMPLES
            number += 1
            if estimator.sample(moment, latencies[number % len(latencies)], 1):
                windows += 1
                last, number = number, 0
        return last

    assert samples(0.05) <= LEAST_SAMPLES + 1
    assert samples(*[0.01] * 19, 1.0) == MOST_SAMPLES


def test_other_clock_begins_a_new_window() -> None:
    """The next event loop may count from elsewhere; what was learned stays."""
    service = Service()
    before = service.run(100).limit
    service.moment = 0.0
    assert service.run(20).limit == pytest.approx(before, abs=1)
    assert service.estimator.probes == 1


def test_calls_that_take_no_time_are_fine() -> None:
    """As on a virtual clock."""
    estimator = LimitEstimator(10, 1, 200)
    moment = 0.0
    for _ in range(20):
        moment = feed(estimator, moment, 0.0, estimator.limit)
    assert estimator.limit > 10
