"""In real time, on every event loop: what the rest of the suite proves on a virtual clock."""

from __future__ import annotations

import threading
import time

import anyio
import pytest

from mtaio.core import TaskExecutor
from mtaio.exceptions import TimeoutError  # noqa: A004 - the refined one
from mtaio.resilience import Pipeline, Retry, Timeout
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager


async def double(number: int) -> int:
    """Suspend for a moment, so that calls overlap."""
    await anyio.sleep(0.001)
    return 2 * number


async def test_map_keeps_order_and_limit() -> None:
    """A hundred calls come back in order, and no more than the limit ran at once."""
    executor = TaskExecutor(max_workers=7)
    running = peak = 0

    async def counted(number: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        try:
            return await double(number)
        finally:
            running -= 1

    assert await executor.map(counted, range(100)) == [2 * number for number in range(100)]
    assert peak == 7


async def test_map_of_what_never_suspends() -> None:
    """Functions that finish at once are no special case, on eager tasks either."""

    async def at_once(number: int) -> int:
        return -number

    executor = TaskExecutor(max_workers=3)
    assert await executor.map(at_once, range(100)) == [-number for number in range(100)]


async def test_stream_can_be_left_early() -> None:
    """Leaving a stream ends what was in flight before the block is over."""
    executor = TaskExecutor(max_workers=4)
    async with executor.stream(double, range(1000)) as results:
        async for result in results:
            assert result % 2 == 0
            break
    assert executor.statistics().in_flight == 0


async def test_plain_functions_run_in_threads() -> None:
    """A plain function runs in a thread of its own, and the loop goes on meanwhile."""
    executor = TaskExecutor()
    elsewhere = await executor.run_in_thread(threading.get_ident)
    assert elsewhere != threading.get_ident()


async def test_rate_limiter_keeps_its_pace() -> None:
    """Ten more tokens than the burst take a tenth of a second at a hundred a second."""
    limiter = RateLimiter(rate=100, burst=1)
    start = time.monotonic()
    for _ in range(11):
        await limiter.acquire()
    assert 0.07 <= time.monotonic() - start < 5  # slack lets late wake-ups catch up 20 ms


async def test_concurrency_limiter_hands_slots_over() -> None:
    """Twenty tasks pass through three slots, and all slots come back."""
    limiter = ConcurrencyLimiter(3)

    async def pass_through() -> None:
        async with limiter:
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(pass_through)
    statistics = limiter.statistics()
    assert statistics.in_use == 0
    assert statistics.acquired == 20


async def test_timeout_fires_in_time() -> None:
    """A block is cut off at its limit, and says so."""
    timeouts = TimeoutManager(0.05)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"^timed out after 0\.05 s") as caught, timeouts():
        await anyio.sleep(60)
    assert 0.048 <= time.monotonic() - start < 5
    assert caught.value.timeout == 0.05


async def test_pipeline_retries_what_has_timed_out() -> None:
    """The one timer of a timeout cancels the attempt that hangs, and no other."""
    api = Pipeline(Timeout(60, total=True), Retry(2, wait_initial=0), Timeout(0.02))
    calls = 0

    async def hang_once() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            await anyio.sleep(60)
        return calls

    with anyio.fail_after(20):
        assert await api.run(hang_once) == 2
        await anyio.sleep(0.03)  # the timer finds nothing to do
        assert await api.run(hang_once) == 3
    assert api.statistics().parts["timeout"].timed_out == 1
