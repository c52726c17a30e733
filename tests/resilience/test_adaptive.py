"""AdaptiveLimiter: what is a sample, who gets a slot, and what a long overload does."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from benchmarks._overload import Phase, simulate, simulate_in_loop
from mtaio import exceptions
from mtaio.resilience import AdaptiveLimiter, Breaker, Pipeline, Timeout
from mtaio.resilience._estimate import LimitEstimator
from mtaio.resources import ConcurrencyLimiter
from mtaio.testing import assert_checkpoints, assert_no_checkpoints, run
from tests.closed_loops import leave_waiting
from tests.resilience.parts import answer, fail

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

A_MINUTE = (Phase(30, 40, 1), Phase(40, 300, 1), Phase(48, 100, 3), Phase(60, 60, 1))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_overload_goes_as_simulated(backend: Any) -> None:
    """A minute of real calls, on the virtual clock, does what the queue of events does."""
    pytest.importorskip(backend)
    real = simulate_in_loop("gamma", 1, 7, A_MINUTE, backend=backend)
    assert real == simulate(lambda: LimitEstimator(10, 1, 200), "gamma", 1, 7, A_MINUTE)
    assert real.goodput[1] > 0.9 * 200
    assert real.p99[1] < 0.3


async def sample(call: Callable[[], Awaitable[object]], times: int = 60) -> None:
    """Make calls that may fail."""
    for _ in range(times):
        with (
            anyio.move_on_after(5),
            suppress(ArithmeticError, OSError, exceptions.MTAIOError),
        ):
            await call()


async def second() -> None:
    """Succeed after a second."""
    await anyio.sleep(1)


async def test_success_is_a_sample() -> None:
    """Latency is what the call took, and its own refusals and waits do not belong to it."""
    limiter = AdaptiveLimiter(initial=1, max_waiting=1)
    api = Pipeline(limiter)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(sample, lambda: api.run(second))
    statistics = limiter.statistics()
    assert statistics.latency_seconds == statistics.baseline_seconds == 1
    assert statistics.rejected > 0
    assert statistics.failed == 0


async def test_timeout_is_a_failure() -> None:
    """It lowers the limit, down to the least."""
    limiter = AdaptiveLimiter(min_limit=2)
    api = Pipeline(limiter, Timeout(2))

    async def client() -> None:
        await sample(lambda: api.run(anyio.sleep, 3), 100)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(client)
    assert limiter.limit == 2
    assert limiter.statistics().failed > 100


@pytest.mark.parametrize("on", [ConnectionError, (ConnectionError, OSError)])
async def test_on_says_what_is_a_failure(on: Any) -> None:
    """The failures of a service that refuses what it cannot do."""
    limiter = AdaptiveLimiter(on=on)
    api = Pipeline(limiter)
    await sample(lambda: api.run(fail))
    assert limiter.statistics().failed == 60


async def division() -> None:
    """Fail after a second, for reasons of its own."""
    await anyio.sleep(1)
    raise ZeroDivisionError


async def spoilt() -> None:
    """Make an error of a cancellation."""
    try:
        await anyio.sleep(9)
    finally:
        raise TimeoutError


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (division, "another failure may take no time"),
        (lambda: anyio.sleep(9), "a cancellation is no outcome"),
        (spoilt, "nor is what is made of one"),
    ],
    ids=["failure", "cancellation", "error out of a cancellation"],
)
async def test_what_tells_nothing_is_no_sample(call: Any, why: str) -> None:
    """It gives its slot back, and that is all."""
    limiter = AdaptiveLimiter()
    api = Pipeline(limiter)
    with anyio.move_on_after(1000):
        await sample(lambda: api.run(call))
    statistics = limiter.statistics()
    assert statistics.acquired == 60
    assert (statistics.in_use, statistics.failed, statistics.latency_seconds) == (0, 0, 0), why


async def test_refusal_of_something_inside_is_no_sample() -> None:
    """Not even one that is a timeout too."""
    slots = ConcurrencyLimiter(1, max_waiting=0)
    breaker = Breaker()
    breaker.force_open()

    async def late() -> None:
        raise exceptions.LimitTimeoutError

    async with slots:
        for api in (
            Pipeline(limiter := AdaptiveLimiter(on=Exception), slots),
            Pipeline(limiter, breaker),
            Pipeline(limiter),
        ):
            await sample(lambda api=api: api.run(late))  # type: ignore[misc] # bound now
    assert limiter.statistics().acquired == 180
    assert limiter.statistics().failed == 0


async def test_filter_that_fails_leaves_no_slot_behind() -> None:
    """Its error takes the place of the call's."""

    def broken(error: Exception) -> bool:
        raise LookupError(error)

    limiter = AdaptiveLimiter(on=broken)
    with pytest.raises(LookupError):
        await Pipeline(limiter).run(fail)
    assert limiter.statistics().in_use == 0


async def test_call_beyond_the_limit_is_refused_at_once() -> None:
    """With the error of the other limiters, which knows the name."""
    limiter = AdaptiveLimiter(initial=1, name="api")
    api = Pipeline(limiter)
    async with anyio.create_task_group() as group:
        group.start_soon(api.run, second)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(
            exceptions.ConcurrencyLimitError,
            match=r"^<AdaptiveLimiter 'api': 1 of 1 slots in use, 0 waiting> lets at most "
            r"max_waiting=0 wait\. More at once would not be answered any sooner\. Try again",
        ) as caught:
            await api.run(answer)
        assert caught.value.name == "api"
        assert anyio.current_time() == 0


async def test_refusals_stay_fair() -> None:
    """One in 64 is a checkpoint, so that a loop over them lets others run."""
    limiter = AdaptiveLimiter(initial=1)

    async def refused() -> None:
        with pytest.raises(exceptions.ConcurrencyLimitError):
            await limiter.__aenter__()

    async with limiter:
        for _ in range(63):
            with assert_no_checkpoints():
                await refused()
        with assert_checkpoints():
            await refused()


async def test_those_who_wait_come_in_their_order() -> None:
    """And no more of them than may wait."""
    limiter = AdaptiveLimiter(initial=1, max_waiting=2)
    order: list[str] = []

    async def work(name: str) -> None:
        async with limiter:
            order.append(name)
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(work, name)
            await anyio.wait_all_tasks_blocked()
        assert limiter.statistics().waiting == 2
        with pytest.raises(exceptions.ConcurrencyLimitError):
            await work("d")
    assert order == ["a", "b", "c"]
    statistics = limiter.statistics()
    assert (statistics.waiting, statistics.in_use, statistics.peak) == (0, 0, 1)
    assert (statistics.wait_seconds, statistics.acquired, statistics.rejected) == (3, 3, 1)


async def test_cancelled_wait_takes_nothing() -> None:
    """It is counted as a wait that was cancelled."""
    limiter = AdaptiveLimiter(initial=1, max_waiting=1)
    async with limiter:
        with anyio.move_on_after(1):
            await Pipeline(limiter).run(answer)
    statistics = limiter.statistics()
    assert (statistics.waiting, statistics.in_use, statistics.cancelled) == (0, 0, 1)


async def test_slot_is_told_of_a_failure_that_raises_nothing() -> None:
    """An answer such as HTTP's 503."""
    limiter = AdaptiveLimiter()
    for _ in range(3):
        async with limiter as slot:
            slot.mark_failed()
            assert slot.failed
    async with limiter:
        pass
    assert limiter.statistics().failed == 1 + 2


async def test_failure_in_a_slot_is_what_it_is_in_a_call() -> None:
    """It counts if ``on`` or the block says so."""
    limiter = AdaptiveLimiter()

    async def block(error: type[Exception], *, mark: bool) -> None:
        async with limiter as slot:
            if mark:
                slot.mark_failed()
            raise error

    for error, mark in ((TimeoutError, False), (OSError, True), (OSError, False)):
        with pytest.raises(error):
            await block(error, mark=mark)
    assert limiter.statistics().failed == 2
    assert limiter.statistics().in_use == 0


async def test_blocks_of_a_task_are_left_in_order() -> None:
    """Each knows when it began; any other order is refused, and leaves the slots as they are."""
    outer, inner = AdaptiveLimiter(), AdaptiveLimiter()
    async with outer:
        await anyio.sleep(1)
        async with inner, outer:
            await anyio.sleep(1)
            with pytest.raises(RuntimeError, match=r"^cannot leave <AdaptiveLimiter: 1 of 10 "):
                await inner.__aexit__(None, None, None)
    with pytest.raises(RuntimeError, match=r"^cannot leave <AdaptiveLimiter: 0 of 10 slots in use"):
        await outer.__aexit__(None, None, None)
    assert (inner.statistics().in_use, outer.statistics().in_use) == (0, 0)
    assert (inner.statistics().acquired, outer.statistics().acquired) == (1, 2)


async def test_queue_may_have_no_bound() -> None:
    """With None, as of every count."""
    limiter = AdaptiveLimiter(initial=1, max_limit=1, max_waiting=None)
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(limiter.run, anyio.sleep, 1)
        await anyio.wait_all_tasks_blocked()
        assert limiter.statistics().waiting == 49
    assert limiter.statistics().rejected == 0
    assert limiter.statistics().max_wait_seconds == 49
    assert str(limiter) == "AdaptiveLimiter(min_limit=1, max_limit=1, max_waiting=None)"


async def test_slots_follow_the_limit() -> None:
    """One that has grown lets in those who wait."""
    limiter = AdaptiveLimiter(initial=1, max_waiting=5)

    async def client() -> None:
        for _ in range(20):
            async with limiter:
                await anyio.sleep(0.1)

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(client)
    assert 2 <= limiter.statistics().peak <= limiter.limit


def test_one_event_loop_after_another() -> None:
    """What was learned stays, though the next clock may begin at 0 again."""
    limiter = AdaptiveLimiter(initial=1)
    api = Pipeline(limiter)
    for seconds in (1.0, 0.5):

        async def main(seconds: float = seconds) -> None:
            await sample(lambda: api.run(anyio.sleep, seconds))

        run(main)
        assert limiter.statistics().latency_seconds == seconds


def test_it_shows_itself() -> None:
    """In a pipeline as it is written, alone with its state; in the statistics by its class."""
    limiter = AdaptiveLimiter(max_limit=50, max_waiting=3, name="api")
    assert repr(limiter) == "<AdaptiveLimiter 'api': 0 of 10 slots in use, 0 waiting>"
    api = Pipeline(limiter, AdaptiveLimiter())
    assert str(api).splitlines()[1:] == [
        "  AdaptiveLimiter(min_limit=1, max_limit=50, max_waiting=3)",
        "    AdaptiveLimiter(min_limit=1, max_limit=200)",
    ]
    assert api.statistics().parts["adaptive_limiter"] == limiter.statistics()
    assert (limiter.name, limiter.limit, limiter.statistics().max_limit) == ("api", 10, 50)


@pytest.mark.parametrize(
    ("bounds", "limit"),
    [({"max_limit": 5}, 5), ({"min_limit": 30}, 30), ({"initial": 7}, 7)],
    ids=str,
)
def test_first_limit_is_between_the_bounds(bounds: Any, limit: int) -> None:
    """Ten, unless a bound or you say otherwise."""
    assert AdaptiveLimiter(**bounds).limit == limit


async def test_block_left_twice() -> None:
    """Left by a task that was started in it, and again by its own: the slot is given back once."""
    limiter = AdaptiveLimiter(initial=1, max_limit=1)
    await limiter.__aenter__()
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.__aexit__, None, None, None)
    with pytest.raises(RuntimeError, match=r"^cannot release a slot of <ConcurrencyLimiter"):
        await limiter.__aexit__(None, None, None)
    async with limiter:
        with pytest.raises(exceptions.ConcurrencyLimitError, match=r"^<AdaptiveLimiter: 1 of 1"):
            await limiter.run(answer)


def test_block_closed_after_its_loop_gives_its_slot_back() -> None:
    """The collector closes it in whatever context it finds: the slot is free again."""
    limiter = AdaptiveLimiter(initial=1)

    async def hold() -> None:
        async with limiter:
            await asyncio.get_running_loop().create_future()

    coroutine = hold()
    leave_waiting(coroutine, lambda: limiter.statistics().in_use == 1)
    assert limiter.statistics().in_use == 1
    coroutine.close()
    assert limiter.statistics().in_use == 0

    async def main() -> None:
        async with limiter:
            assert limiter.statistics().in_use == 1

    run(main)
    assert limiter.statistics().failed == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"min_limit": 0}, ValueError, r"^min_limit=0 "),
        ({"max_limit": 1.5}, TypeError, r"^max_limit=1\.5 "),
        ({"min_limit": 9, "max_limit": 8}, ValueError, r"^max_limit=8 is less than min_limit=9, "),
        ({"initial": 300}, ValueError, r"^initial=300 is not between min_limit=1 and max_limit="),
        ({"initial": math.inf}, TypeError, r"^initial=inf "),
        ({"max_waiting": -1}, ValueError, r"^max_waiting=-1 "),
        ({"on": BaseException}, TypeError, r"^on=<class 'BaseException'> "),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """With the value, the reason and the way out."""
    with pytest.raises(error, match=message):
        AdaptiveLimiter(**arguments)
