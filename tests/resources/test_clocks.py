"""Limits on event loops that keep a time of their own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio._internal import clock
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    TimeoutManager,
)
from tests.clocks import leap, mock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator


@pytest.fixture(autouse=True)
def _clock_of_the_process() -> Generator[None]:
    before = clock.read
    yield
    clock.follow(before)


clocks = pytest.mark.parametrize("run", [leap, mock])


async def times_of(acquire: Callable[[], Awaitable[None]], tasks: int) -> list[float]:
    """Return after how many seconds each of some tasks has acquired."""
    started = anyio.current_time()
    times: list[float] = []

    async def one() -> None:
        await acquire()
        times.append(round(anyio.current_time() - started, 6))

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(one)
    return times


@clocks
def test_rates_are_those_of_the_loop_s_time(run: Callable[[Any], Any]) -> None:
    """One token a second is one a second of the time by which the waiters sleep."""

    async def main() -> None:
        keyed = KeyedRateLimiter(1)
        for acquire in (RateLimiter(1).acquire, lambda: keyed.acquire("key")):
            assert await times_of(acquire, 6) == [0, 1, 2, 3, 4, 5]
            await anyio.sleep(3600)
            assert await times_of(acquire, 2) == [0, 1]  # full again, and no fuller

    run(main)


@clocks
def test_limiter_of_a_module_that_did_not_wait_at_first(run: Callable[[Any], Any]) -> None:
    """What was taken before any loop ran, or at once in it, counts by the loop's time too."""
    limiter = RateLimiter(2, burst=4, per=10_000)
    limiter.acquire_nowait()

    async def main() -> None:
        await limiter.acquire()
        limiter.acquire_nowait()
        times = await times_of(limiter.acquire, 4)
        assert times == pytest.approx([0, 5000, 10_000, 15_000], abs=100)  # real time went by

    run(main)


@clocks
def test_bucket_keeps_what_it_held_from_one_loop_to_the_next(run: Callable[[Any], Any]) -> None:
    """A time that begins again is neither a rest nor a debt."""
    limiter = RateLimiter(1, burst=2, slack=0)

    async def main() -> list[float]:
        return await times_of(limiter.acquire, 3)

    assert run(main) == [0, 0, 1]
    assert run(main) == [1, 2, 3]


@clocks
def test_timeouts_of_waits(run: Callable[[Any], Any]) -> None:
    """Whether a wait fits is judged, and it ends, by the loop's time."""

    async def main() -> None:
        limiter = RateLimiter(1)
        await limiter.acquire()
        await limiter.acquire(timeout=1)
        with pytest.raises(TimeoutError):
            await limiter.acquire(timeout=0.5)
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await anyio.sleep(0.5)
            limiter.rate = 0.1
            started = anyio.current_time()
            with pytest.raises(TimeoutError):
                await limiter.acquire(timeout=1)
            assert anyio.current_time() == started  # refused at once
        manager = TimeoutManager(2)
        started = anyio.current_time()
        with pytest.raises(TimeoutError):
            await manager.run(anyio.sleep_forever)
        assert anyio.current_time() == pytest.approx(started + 2)

    run(main)


@clocks
def test_statistics_of_waits(run: Callable[[Any], Any]) -> None:
    """How long tasks waited for a slot is told in the loop's seconds."""

    async def main() -> None:
        limiter = ConcurrencyLimiter(1)

        async def work() -> None:
            async with limiter:
                await anyio.sleep(2)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work)
        statistics = limiter.statistics()
        assert statistics.wait_seconds == pytest.approx(2 + 4)
        assert statistics.max_wait_seconds == pytest.approx(4)

    run(main)


@clocks
def test_statistics_from_a_thread_change_nothing(run: Callable[[Any], Any]) -> None:
    """A thread without an event loop has another time; a look from there grants no tokens."""
    rate = RateLimiter(1, burst=2)
    keyed = KeyedRateLimiter(1, burst=2)

    def look() -> None:
        rate.statistics()
        keyed.statistics()
        keyed.statistics_for("key")

    async def main() -> None:
        acquires: list[Callable[[], Awaitable[None]]] = [rate.acquire, lambda: keyed.acquire("key")]
        for acquire in acquires:
            await acquire()
            await acquire()
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            assert await times_of(acquire, 2) == [1, 2]

    run(main)
