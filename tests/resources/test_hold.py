"""RateLimiter.hold: nothing is granted for some time, and then the bucket goes on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread

from mtaio.exceptions import LimitTimeoutError, RateLimitError
from mtaio.resources import KeyedRateLimiter, RateLimiter
from mtaio.testing import assert_quiescent, run, settle
from tests.resources.moments import cancel_everywhere, modes

if TYPE_CHECKING:
    from mtaio.testing import Victim
    from tests.resources.moments import Mode


async def grants(limiter: RateLimiter, number: int) -> list[float]:
    """Return when so many tasks that ask now get a token."""
    start = anyio.current_time()
    moments: list[float] = []

    async def ask() -> None:
        await limiter.acquire()
        moments.append(anyio.current_time() - start)

    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(ask)
    return moments


async def test_nothing_is_granted_until_it_ends() -> None:
    """What was there is gone, and what has flowed in is there when the hold ends."""
    limiter = RateLimiter(2, burst=3)
    limiter.hold(1)
    assert limiter.statistics().held_seconds == 1
    assert (limiter.statistics().tokens, limiter.statistics().next_grant_seconds) == (0, 1)
    assert await grants(limiter, 4) == [1, 1, 1.5, 2]
    assert limiter.statistics().held_seconds == 0


async def test_a_bucket_fills_no_further_than_it_can() -> None:
    """After a long hold as much is there as the bucket holds."""
    limiter = RateLimiter(2, burst=3)
    limiter.hold(60)
    assert await grants(limiter, 5) == [60, 60, 60, 60.5, 61]


async def test_a_window_only_pauses() -> None:
    """What a window has room for follows from what was granted, also after a hold."""
    limiter = RateLimiter.window(2, per=10)
    await limiter.acquire()
    limiter.hold(3)
    assert not limiter.try_acquire()
    assert await grants(limiter, 2) == [3, 10]


async def test_the_longest_counts() -> None:
    """A shorter hold does not end a longer one, and a longer one goes on from now."""
    limiter = RateLimiter(1)
    limiter.hold(5)
    limiter.hold(1)
    assert limiter.statistics().held_seconds == 5
    await anyio.sleep(2)
    limiter.hold(4)
    assert limiter.statistics().held_seconds == 4
    assert await grants(limiter, 2) == [4, 5]


async def test_the_last_hold_counts_what_was_there_as_gone() -> None:
    """A refusal says that nothing is left, also of what flowed in during the hold before."""
    limiter = RateLimiter(1, burst=9)
    limiter.hold(4)
    await anyio.sleep(3)
    limiter.hold(0)
    assert await grants(limiter, 2) == [1, 2]


async def test_reset_ends_it() -> None:
    """A service that has restarted has forgotten its refusal, too."""
    limiter = RateLimiter(1, burst=2, slack=0)
    limiter.hold(60)

    async def restart() -> None:
        await anyio.sleep(2)
        limiter.reset()

    async with anyio.create_task_group() as group:
        group.start_soon(restart)
        assert await grants(limiter, 3) == [2, 2, 3]


async def test_tasks_that_wait_keep_their_order() -> None:
    """Held while they wait, they are served in their order, when it ends."""
    limiter = RateLimiter(1)
    served: list[tuple[int, float]] = []

    async def ask(number: int) -> None:
        await limiter.acquire()
        served.append((number, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(ask, number)
            await settle()
        await anyio.sleep(0.5)
        limiter.hold(2)
    assert served == [(0, 0), (1, 2.5), (2, 3.5), (3, 4.5)]


async def test_whether_a_timeout_suffices_is_decided_with_it() -> None:
    """A wait that a hold makes too long is refused at once; one that is held later ends in time."""
    limiter = RateLimiter(1, burst=5)
    limiter.hold(3)
    with pytest.raises(LimitTimeoutError) as late:
        await limiter.acquire(timeout=2.5)
    assert (anyio.current_time(), late.value.retry_after) == (0, 3)
    with pytest.raises(RateLimitError) as refused:
        limiter.acquire_nowait(4)
    assert refused.value.retry_after == 4
    await limiter.acquire(timeout=3)
    await limiter.acquire(2)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:

            async def impatient() -> None:
                with pytest.raises(LimitTimeoutError):
                    await limiter.acquire(2, timeout=2)
                assert anyio.current_time() == 5

            group.start_soon(impatient)
            await settle()
            limiter.hold(60)


async def test_limits_change_during_it() -> None:
    """New limits hold for what comes in from then on; the hold lasts as long as it did."""
    limiter = RateLimiter(1, burst=4)
    limiter.hold(2)
    await anyio.sleep(1)
    limiter.reconfigure(rate=2)
    assert await grants(limiter, 4) == [1, 1, 1, 1.5]


@pytest.mark.parametrize("rate", [0, math.inf])
async def test_without_a_rate(rate: float) -> None:
    """A paused limiter has nothing afterwards, an unlimited one as much as ever."""
    limiter = RateLimiter(rate, burst=2)
    limiter.hold(1)
    with anyio.move_on_after(5):
        await limiter.acquire(2)
    assert anyio.current_time() == (5 if rate == 0 else 1)


async def test_from_another_thread() -> None:
    """A thread may hold it while tasks wait."""
    limiter = RateLimiter(1)
    await limiter.acquire()
    moments: list[float] = []

    async def ask() -> None:
        await limiter.acquire()
        moments.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await settle()
        await to_thread.run_sync(limiter.hold, 3)
    assert moments == [3]


def test_from_one_clock_to_the_next(backend: str) -> None:
    """What is left of a hold goes over to the clock of the next event loop."""
    limiter = RateLimiter(1)

    async def first() -> None:
        limiter.hold(10)
        await anyio.sleep(4)

    async def second() -> None:
        assert 5.9 < limiter.statistics().held_seconds <= 6
        await limiter.acquire()
        assert 5.9 < anyio.current_time() <= 6

    run(first, backend=backend)
    run(second, backend=backend)


@modes
def test_cancelled_anywhere(mode: Mode) -> None:
    """A task that is cancelled in a hold leaves the bucket, the hold and the queue alone."""

    async def scenario(victim: Victim) -> None:
        limiter = RateLimiter(1, slack=0)
        limiter.hold(2)
        moments: list[float] = []

        async def ask() -> None:
            await limiter.acquire()
            moments.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            group.start_soon(victim, ask)
            group.start_soon(ask)
        assert moments in ([2], [2, 3])
        assert_quiescent(limiter)

    cancel_everywhere(mode, scenario)


async def test_fast_paths_come_back() -> None:
    """After a hold the calls are as short as before, from the first that had to look."""
    limiter = RateLimiter(1, burst=2)
    limiter.hold(1)
    await anyio.sleep(9)
    assert limiter.try_acquire()
    assert limiter.statistics().tokens == 1
    assert repr(limiter) == "<RateLimiter 1/s burst=2>"


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
def test_refused(seconds: float) -> None:
    """Only a length of time can be held."""
    limiter = RateLimiter(1)
    with pytest.raises(ValueError, match=r"^seconds="):
        limiter.hold(seconds)
    with pytest.raises(TypeError, match=r"^seconds='1'"):
        limiter.hold("1")  # type: ignore[arg-type]
    assert limiter.try_acquire()


async def test_one_key() -> None:
    """One key is held, and not forgotten before that is over; the others go on."""
    limiter = KeyedRateLimiter(1, max_keys=1, idle_ttl=0)
    limiter.hold("a", 5)
    assert limiter.statistics_for("a").held_seconds == 5
    with pytest.raises(RateLimitError) as refused:
        limiter.acquire_nowait("b")
    assert refused.value.retry_after == 5
    await anyio.sleep(5)
    assert limiter.try_acquire("b")
    with pytest.raises(TypeError, match=r"^key=\[\] cannot be hashed"):
        limiter.hold([], 1)  # type: ignore[arg-type] # wrong on purpose
