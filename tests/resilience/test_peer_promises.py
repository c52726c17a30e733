"""
What the suites of other libraries ask for, and mtaio did not have before; in our words.

Hooks, results and blocks of retries are tenacity's and stamina's; several rates those of
pyrate-limiter and limits; slots for each key are aiohttp's and cashews'; a shared breaker is
pybreaker's. One short test for each, so that a promise that we lose is seen at once. What processes
share is in ``tests/redis/server``: ``test_breaker.py``, ``test_quota.py``, ``test_window.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio import (
    KeyedConcurrencyLimiter,
    KeyedRateLimiter,
    Pipeline,
    Quota,
    RateLimiter,
    Retry,
    TaskExecutor,
)
from mtaio.exceptions import RateLimitError
from mtaio.resilience import Fallback, Retried, subscribe
from mtaio.resources import KeyedQuota
from tests.resilience.parts import Failing

if TYPE_CHECKING:
    from mtaio.resilience import PartEvent

# ---- tenacity, stamina ---------------------------------------------------------------------------


async def test_hooks() -> None:
    """``before_sleep``, ``set_on_retry_hooks``: number, wait, cause, function; for each way in."""
    of_policy: list[Retried] = []
    of_all: list[PartEvent] = []
    policy = Retry(3, waits=[1, 2], on_retry=of_policy.append, name="api")
    cancel = subscribe(of_all.append)
    await policy.run(Failing(2))
    await Pipeline(policy).run(Failing(2))
    await TaskExecutor().map(Failing(2), [1], retry=policy)
    async for attempt in policy:
        async with attempt:
            if attempt.number < 3:
                raise ConnectionError
    cancel()
    told = [event for event in of_all if isinstance(event, Retried)]
    assert told == of_policy
    assert [(event.attempt, event.seconds) for event in told] == [(1, 1), (2, 2)] * 4
    assert {event.name for event in told} == {"api"}
    assert {event.function for event in told} == {"Failing", None}  # a block has none


async def test_results_and_what_comes_in_the_end() -> None:
    """``retry_if_result``, ``retry_error_callback``: the last result, or another answer."""
    results = iter([None, None, "done", None, None])

    async def poll() -> str | None:
        return next(results)

    policy = Retry(2, until=lambda result: result is not None, waits=[1])
    assert await policy.run(poll) is None
    answered = Pipeline(Fallback(lambda *_: "late", failed=lambda result: result is None), policy)
    assert await answered.run(poll) == "done"
    assert await answered.run(poll) == "late"
    assert anyio.current_time() == 2


async def test_blocks() -> None:
    """``AsyncRetrying``, ``retry_context``: what the block found is judged, too."""
    seen: list[tuple[int, float]] = []
    async for attempt in Retry(5, until=lambda number: number == 3, waits=[1]):
        async with attempt:
            seen.append((attempt.number, anyio.current_time()))
            attempt.result = attempt.number
    assert seen == [(1, 0), (2, 1), (3, 2)]


# ---- pyrate-limiter, limits ----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["quota", "pipeline", "executor"])
async def test_several_rates(way: str) -> None:
    """``[Rate(2, SECOND), Rate(5, MINUTE)]``: each is kept, and a refusal spends none of them."""
    a, b = RateLimiter.window(2, per=1), RateLimiter.window(5, per=60)
    quota = Quota(second=a, minute=b)
    moments: list[float] = []

    async def call(_: int = 0) -> None:
        moments.append(anyio.current_time())

    async def through_the_quota(number: int) -> None:
        async with quota.take():
            await call(number)

    options: dict[str, Any] = {"rate": [a, b]} if way == "executor" else {}
    fns: dict[str, Any] = {
        "quota": through_the_quota,
        "pipeline": Pipeline([a, b])(call),
        "executor": call,
    }
    await TaskExecutor().for_each(fns[way], range(6), **options)
    assert moments == pytest.approx([0, 0, 1, 1, 2, 60])
    await anyio.sleep(60)
    for _ in range(9):
        assert b.try_acquire() or not quota.try_acquire()
    assert a.statistics().tokens == 2


async def test_weights_and_keys_of_several_rates() -> None:
    """``weight=``, ``BucketFactory``: each key has its own of all rates."""
    quota = KeyedQuota(requests=2, tokens=(100, 60))
    assert quota.try_acquire("a", tokens=90)
    assert not quota.try_acquire("a", tokens=20)
    assert quota.try_acquire("b", tokens=90)
    assert quota.try_acquire("a", tokens=10)


async def test_windows_of_keys() -> None:
    """``MovingWindowRateLimiter.hit(item, key)``: never more in any minute, for each key."""
    limiter = KeyedRateLimiter.window(2, per=60, max_keys=9)
    for _ in range(2):
        await limiter.acquire("a")
        await anyio.sleep(10)
    with pytest.raises(RateLimitError):
        limiter.acquire_nowait("a")
    await limiter.acquire("b")
    assert anyio.current_time() == 20
    await limiter.acquire("a")
    assert anyio.current_time() == 60
    await limiter.acquire("a")
    assert anyio.current_time() == 70


async def test_slots_of_keys() -> None:
    """``limit_per_host``, ``@cache.locked()``: so many at once for each."""
    slots = KeyedConcurrencyLimiter(1, max_keys=2)
    ended: list[tuple[str, float]] = []

    @slots(key=lambda host: host)
    async def fetch(host: str) -> None:
        await anyio.sleep(1)
        ended.append((host, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for host in ("a", "b", "a"):
            group.start_soon(fetch, host)
    assert sorted(ended) == [("a", 1), ("a", 2), ("b", 1)]
