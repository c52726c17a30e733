"""What a sliding window promises, one case at a time."""

from __future__ import annotations

import gc
import math
import tracemalloc
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal import clock
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.core import TaskExecutor
from mtaio.exceptions import LimitTimeoutError, RateLimitError
from mtaio.resources import RateLimiter, ResourceLimiter
from mtaio.testing import run, settle
from tests.backends import BACKENDS
from tests.clocks import by_hand
from tests.resources.moments import cancel_everywhere, modes

if TYPE_CHECKING:
    from mtaio.testing import Victim
    from tests.resources.moments import Mode


async def grants(limiter: RateLimiter, *tokens: float) -> list[float]:
    """Return when so many tokens are granted, asked for one after another."""
    moments: list[float] = []

    async def ask(amount: float) -> None:
        await limiter.acquire(amount)
        moments.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        for amount in tokens:
            group.start_soon(ask, amount)
            await settle()
    return moments


async def test_never_more_than_the_limit_in_any_span() -> None:
    """aiolimiter#298, #304: after a rest a bucket lets twice as many through; a window does not."""
    limiter = RateLimiter.window(3, per=60)
    await anyio.sleep(1000)
    assert await grants(limiter, *[1] * 7) == [1000] * 3 + [1060] * 3 + [1120]


async def test_a_grant_leaves_when_it_is_old_enough() -> None:
    """Each token comes back ``per`` seconds after it was granted, and not all at one time."""
    limiter = RateLimiter.window(2, per=1)
    await limiter.acquire()
    await anyio.sleep(0.75)
    assert await grants(limiter, 1, 1, 1, 1) == [0.75, 1, 1.75, 2]


async def test_requests_of_several_tokens() -> None:
    """A request waits for all its tokens, and none behind it overtakes it."""
    limiter = RateLimiter.window(3, per=1)
    assert await grants(limiter, 2, 2.0, 1, 3, 0) == [0, 0, 1, 1, 2]


async def test_late_waiters_count_from_when_they_are_served() -> None:
    """There is no slack: a loop that stands still brings nothing forward."""
    limiter = RateLimiter.window(1, per=1)
    lost = 0.0
    with clock.reading_from(lambda: anyio.current_time() + lost):
        await limiter.acquire()
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire)
            await settle()
            lost = 5.5
        assert clock.now() == 6.5
        with pytest.raises(RateLimitError) as refused:
            limiter.acquire_nowait()
    assert refused.value.retry_after == 1
    assert limiter.slack == 0


async def test_nowait_and_timeouts() -> None:
    """Refusals say how long it takes, the tasks that wait included."""
    limiter = RateLimiter.window(2, per=10, name="api")
    limiter.acquire_nowait(2)
    await anyio.sleep(4)
    message = r"^<RateLimiter 'api' window 2/10 s> cannot grant 1 token now, only in 6 s\.$"
    with pytest.raises(RateLimitError, match=message) as refused:
        limiter.acquire_nowait()
    assert refused.value.retry_after == 6
    with pytest.raises(LimitTimeoutError, match=r"within 5 s, only in 6 s\.$"):
        await limiter.acquire(timeout=5)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(limiter.acquire)
        await settle()
        with pytest.raises(LimitTimeoutError) as late:
            await limiter.acquire(timeout=15)
        assert late.value.retry_after == 16  # all of the window, and then one more
        assert anyio.current_time() == 4
    assert anyio.current_time() == 10
    statistics = limiter.statistics()
    assert (statistics.acquired, statistics.rejected, statistics.timed_out) == (3, 1, 2)


async def test_statistics() -> None:
    """They tell the room in the window, and look at it only."""
    limiter = RateLimiter.window(3, per=1)
    assert (limiter.rate, limiter.burst, limiter.per) == (3, 3, 1)
    assert limiter.statistics().tokens == 3
    limiter.acquire_nowait(2)
    assert limiter.statistics().tokens == 1
    assert limiter.statistics().next_grant_seconds == 0
    limiter.acquire_nowait()
    assert limiter.statistics().tokens == 0
    assert limiter.statistics().next_grant_seconds == 1
    await anyio.sleep(0.25)
    assert limiter.statistics().next_grant_seconds == 0.75
    await anyio.sleep(5)
    assert limiter.statistics().tokens == 3


async def test_yields_like_any_limiter() -> None:
    """A call in 64 is a checkpoint, though there is room for all."""
    limiter = RateLimiter.window(10_000, per=1)
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(3 * FAST_CALLS):
            await limiter.acquire()
        group.cancel_scope.cancel()
    assert ran >= 2


@modes
def test_cancelled_waiter_spends_nothing(mode: Mode) -> None:
    """Cancelled at any moment, it has taken nothing, and those behind it move up."""

    async def scenario(victim: Victim) -> None:
        limiter = RateLimiter.window(1, per=1)

        async def ask() -> None:
            await limiter.acquire()

        async with anyio.create_task_group() as group:
            await ask()
            group.start_soon(victim, ask)
            await settle()
            group.start_soon(ask)
        granted = limiter.statistics().acquired
        assert anyio.current_time() == granted - 1
        assert granted + limiter.statistics().cancelled == 3

    cancel_everywhere(mode, scenario)


async def test_new_limits() -> None:
    """A new limit counts what was granted under the old one; 0 pauses; waiters notice."""
    limiter = RateLimiter.window(4, per=1)
    limiter.acquire_nowait(4)
    limiter.rate = 2
    assert (limiter.rate, limiter.burst) == (2, 2)
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire)
        await settle()
        limiter.rate = 5
        await settle()
        assert limiter.statistics().waiting == 0
        assert limiter.statistics().tokens == 0  # the four are not forgotten
    assert anyio.current_time() == 0
    await anyio.sleep(10)
    limiter.rate = 0
    assert repr(limiter) == "<RateLimiter window 5/1 s paused>"
    assert limiter.statistics().tokens == 0
    assert limiter.statistics().next_grant_seconds == math.inf
    limiter.acquire_nowait(0)
    limiter.reconfigure()
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire)
        await settle()
        assert limiter.statistics().waiting == 1
        limiter.reset()
        await settle()
        assert limiter.statistics().waiting == 1  # the pause stays
        limiter.rate = 1
    assert anyio.current_time() == 10


async def test_lowered_limit_turns_large_requests_away() -> None:
    """A task that waits for more than the window can ever hold is told so."""
    limiter = RateLimiter.window(3, per=1)
    limiter.acquire_nowait(3)
    message = r"^<.*> can no longer grant 3 tokens: limit was lowered to 2 during the wait\."

    async def ask() -> None:
        with pytest.raises(RateLimitError, match=message):
            await limiter.acquire(3)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await settle()
        limiter.rate = 2


async def test_a_large_request_costs_what_a_small_one_does() -> None:
    """What is remembered depends on how often tokens are granted, not on how many."""
    limiter = RateLimiter.window(2**60, per=60)
    await limiter.acquire()
    tracemalloc.start()
    try:
        for _ in range(1000):
            await limiter.acquire(10_000_000)
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()
    assert limiter.statistics().tokens == 2**60 - 1 - 10**10
    await anyio.sleep(60)
    await limiter.acquire(2**60)
    await anyio.sleep(59)
    assert limiter.statistics().tokens == 0


async def test_what_is_not_out_of_date_is_remembered() -> None:
    """However many grants there are, and at however many moments."""
    limiter = RateLimiter.window(1000, per=1)
    for count in range(1, 901):
        await limiter.acquire()
        assert limiter.statistics().tokens == 1000 - count
        await anyio.sleep(1 / 1024)


async def test_what_is_out_of_date_is_forgotten() -> None:
    """However long it is used, a window remembers about as much as its limit."""
    limiter = RateLimiter.window(10, per=1)
    tracemalloc.start()
    try:
        for _ in range(2000):
            await limiter.acquire()
            await anyio.sleep(0.125)
        gc.collect()  # without the GIL frames and tasks may be left until then
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()
    assert limiter.statistics().tokens == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1), ValueError, r"^limit=0 is less than 1\. Pass how many tokens may be granted in"),
        ((2.5, 1), TypeError, r"^limit=2\.5 is a float, not an int\."),
        ((2**61, 1), ValueError, r"^limit=2305843009213693952 is not a limit\. Pass how many tok"),
        ((2, 0), ValueError, r"^per=0 is not a finite number greater than 0\. Pass the seconds in"),
        ((2, math.inf), ValueError, r"^per=inf is not a finite number"),
        ((2, "1"), TypeError, r"^per='1' is a str, not a number\."),
    ],
)
def test_limits_are_refused(
    arguments: tuple[Any, Any], error: type[Exception], message: str
) -> None:
    """A window that makes no sense is refused."""
    with pytest.raises(error, match=message):
        RateLimiter.window(arguments[0], per=arguments[1])


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (4, ValueError, r"^cannot acquire 4 tokens: the window never has room for more than limit"),
        (0.5, ValueError, r"^cannot acquire 0\.5 tokens: a window counts whole ones\. Pass a whol"),
        (math.nan, ValueError, r"^tokens=nan is not a number\."),
        (-1, ValueError, r"^tokens=-1 is less than 0\."),
    ],
)
async def test_tokens_are_refused(tokens: Any, error: type[Exception], message: str) -> None:
    """What could never be granted is refused by every call."""
    limiter = RateLimiter.window(3, per=1)
    with pytest.raises(error, match=message):
        await limiter.acquire(tokens)
    with pytest.raises(error, match=message):
        limiter.acquire_nowait(tokens)
    with pytest.raises(error, match=message):
        limiter(tokens=tokens)


def test_changes_are_refused() -> None:
    """A window has no burst, and its limit is a whole number."""
    limiter = RateLimiter.window(3, per=1)
    with pytest.raises(ValueError, match=r"^burst=5 does not apply to window 3/1 s, which"):
        limiter.burst = 5
    with pytest.raises(TypeError, match=r"^rate=2\.5 is a float, not an int\. .* 0 pauses\.$"):
        limiter.rate = 2.5
    assert limiter.rate == 3


async def test_other_clocks() -> None:
    """When another clock takes over, what was granted is as old as it was."""
    limiter = RateLimiter.window(1, per=4)
    with by_hand(100.0) as hands:
        limiter.acquire_nowait()
        hands.now = 101
        with pytest.raises(RateLimitError):
            limiter.acquire_nowait()
        hands.take_over(0)
        with pytest.raises(RateLimitError) as refused:
            limiter.acquire_nowait()
    assert refused.value.retry_after == 3


def test_one_loop_after_another() -> None:
    """Made at module level, it serves every backend, and remembers what it granted."""
    limiter = RateLimiter.window(2, per=1)

    async def main() -> float:
        await limiter.acquire()
        return anyio.current_time()

    assert [run(main, backend=backend) for backend in (*BACKENDS, *BACKENDS)][:2] == [0, 0]
    assert limiter.statistics().acquired == 2 * len(BACKENDS)


async def test_in_other_places() -> None:
    """An executor and a `ResourceLimiter` take one as their rate."""
    limiter = RateLimiter.window(2, per=1)
    started: list[float] = []

    async def work(_: int) -> None:
        started.append(anyio.current_time())

    async with TaskExecutor() as executor:
        await executor.map(work, range(4), rate=limiter)
    async with ResourceLimiter(rate=limiter):
        started.append(anyio.current_time())
    assert started == [0, 0, 1, 1, 2]
