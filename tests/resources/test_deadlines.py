"""One deadline for an operation: what cannot be in time is refused, and `time_left` tells it."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import to_thread, wait_all_tasks_blocked

from mtaio.core import TaskExecutor
from mtaio.exceptions import LimitTimeoutError
from mtaio.exceptions import TimeoutError as RanOutError
from mtaio.resilience import Breaker, Budget, Hedge, Pipeline, Retry, Timeout
from mtaio.resources import (
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
    time_left,
)

MESSAGE = (
    r" cannot grant 1 token within the 2 s that are left here, only in 5 s\. That time limit is"
)

timeouts = TimeoutManager(2)


async def at_once() -> int:
    """Do nothing."""
    return 1


async def in_block(ask: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Ask within two seconds."""
    with timeouts():
        await ask()


async def in_pipeline(ask: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Ask within two seconds, in a pipeline that would try again."""
    await Pipeline(Timeout(2, total=True), Retry(5)).run(ask)


async def in_child(ask: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Ask within two seconds, in a task of the block."""
    with timeouts():
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None


OPERATIONS = {"block": in_block, "pipeline": in_pipeline, "child": in_child}
ASKED: dict[str, Callable[[], Any]] = {
    "bucket": lambda: RateLimiter(0.2),
    "window": lambda: RateLimiter.window(1, per=5),
    "keyed": lambda: KeyedRateLimiter(0.2),
    "combined": lambda: ResourceLimiter(rate=0.2),
}


def ask_of(limiter: Any) -> Callable[[], Coroutine[Any, Any, object]]:
    """Return what asks a limiter for a token."""
    if isinstance(limiter, KeyedRateLimiter):
        return partial(limiter.acquire, "key")
    if isinstance(limiter, ResourceLimiter):
        return partial(limiter.run, at_once)
    return partial(limiter.acquire)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("make", ASKED.values(), ids=ASKED)
async def test_what_cannot_be_in_time_is_refused_at_once(
    make: Callable[[], Any], operation: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    """The error is a timeout; nothing was spent, no attempt follows, and in time it is granted."""
    limiter = make()
    ask = ask_of(limiter)
    await operation(ask)
    with pytest.raises(LimitTimeoutError, match=MESSAGE) as caught:
        await operation(ask)
    assert anyio.current_time() == 0
    error = caught.value
    assert (error.retry_after, error.timeout, error.deadline) == (5, 2, 2)
    await anyio.sleep(3.5)
    await operation(ask)  # in 1.5 s
    assert anyio.current_time() == 5
    rate: Any = limiter.rate if isinstance(limiter, ResourceLimiter) else limiter
    now = rate.statistics()
    assert (now.acquired, now.timed_out, now.waiting, now.cancelled) == (2, 1, 0, 0)


async def test_an_executors_timeout_is_seen() -> None:
    """Its items are refused at once too."""
    limiter = RateLimiter(0.2)
    calls = [1.0, 1.0]
    results = await TaskExecutor().map(limiter.acquire, calls, timeout=2, errors="return")
    assert [type(each) for each in results] == [type(None), LimitTimeoutError]
    assert anyio.current_time() == 0


async def test_those_ahead_count() -> None:
    """The wait is that behind all who asked before; who is refused is behind nobody any more."""
    limiter = RateLimiter(1)
    granted: list[float] = []

    async def ask(seconds: float) -> None:
        with timeouts(seconds):
            await limiter.acquire()
        granted.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        for seconds in (9, 1.5, 9):
            group.start_soon(ask, seconds)
            await wait_all_tasks_blocked()
        with pytest.raises(LimitTimeoutError, match=r" within the 2\.5 s that are left here, onl"):
            await ask(2.5)
        with pytest.raises(LimitTimeoutError):  # in the moment of the token the time is up
            await ask(3)
        await ask(3.1)
    assert granted == [0, 1, 2, 3]


async def test_an_own_timeout_or_the_deadline() -> None:
    """Whichever is earlier decides, and its error says which it was."""
    limiter = RateLimiter(0.2)
    await limiter.acquire()
    with timeouts(), pytest.raises(LimitTimeoutError, match=r" within 1 s, only in 5 s\.$"):
        await limiter.acquire(timeout=1)
    with timeouts(), pytest.raises(LimitTimeoutError, match=MESSAGE):
        await limiter.acquire(timeout=9)
    with timeouts(9), timeouts(), timeouts(7), pytest.raises(LimitTimeoutError, match=MESSAGE):
        await limiter.acquire()
    assert anyio.current_time() == 0


SCOPES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "anyio": lambda: anyio.move_on_after(2),
    "no limit": lambda: timeouts(None),
    "clean-up": lambda: timeouts.shielded(grace=9),
}


@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
async def test_other_scopes_are_left_alone(scope: Callable[[], Any]) -> None:
    """A scope of anyio's means to go on without a result; in clean-up its own time counts."""
    limiter = RateLimiter(0.2)
    await limiter.acquire()
    with timeouts(9), scope() as entered:
        await limiter.acquire()
    assert anyio.current_time() == (2 if isinstance(entered, anyio.CancelScope) else 5)


async def test_a_pause_may_end_in_time() -> None:
    """A wait of unknown length is begun, and the block ends it."""
    limiter = RateLimiter(0)
    await limiter.acquire()
    with pytest.raises(RanOutError, match=r"^timed out after 2 s$"), timeouts():
        await limiter.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(in_block, limiter.acquire)
        await anyio.sleep(1)
        limiter.rate = 10


async def test_a_call_that_has_to_yield_sees_the_deadline() -> None:
    """Also where the queue was just in use, and the next call yields."""
    limiter = RateLimiter(0.2)
    for _ in range(2):
        await limiter.acquire()
    for _ in range(70):
        with pytest.raises(LimitTimeoutError), timeouts():
            await limiter.acquire()
    assert anyio.current_time() == 5


async def test_a_refusal_is_no_failure_of_the_service() -> None:
    """A breaker does not count it, and a budget of retries is not touched."""
    limiter, breaker = RateLimiter(0.2), Breaker(0.5, last=2, min_calls=1)
    budget = Budget(1)
    await limiter.acquire()
    pipeline = Pipeline(
        Timeout(2, total=True), Retry(3, budget=budget), breaker, limiter, Timeout(1)
    )
    with pytest.raises(LimitTimeoutError) as caught:
        await pipeline.run(at_once)
    assert caught.value.__notes__ == [
        "not tried again: attempt 2 would have to wait 5 s, and the deadline is in 2 s"
    ]
    assert breaker.statistics().failed == 0
    assert budget.statistics().retried == 0


async def test_no_hedge_without_time() -> None:
    """In the moment in which the time is up no further attempt is begun; before, it is."""
    hedge = Hedge(2)

    async def call(seconds: float) -> None:
        with timeouts(9) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(hedge.run, anyio.sleep_forever)
                await anyio.sleep(1)
                scope.reschedule(seconds)  # behind the timer of the hedge

    with pytest.raises(RanOutError):
        await call(1)
    assert hedge.statistics().hedges == 0
    with pytest.raises(RanOutError):
        await call(1.5)
    assert hedge.statistics().hedges == 1


async def test_time_left() -> None:
    """The nearest limit, at most what is asked for; also in a thread, and without a loop."""
    assert time_left() == math.inf
    assert time_left(10) == 10
    with timeouts(5), anyio.move_on_after(3):
        assert (time_left(), time_left(10), time_left(1)) == (3, 3, 1)
        assert await to_thread.run_sync(time_left, 10) == 5
        await anyio.sleep(1)
        assert time_left(2.5) == 2
    with timeouts(1) as scope:
        scope.cancel()
        assert time_left(10) == 0
    with pytest.raises(ValueError, match=r"^most=-1 is less than 0\. Pass the seconds that the"):
        time_left(-1)


def test_time_left_without_a_loop() -> None:
    """Where nothing runs, nothing limits."""
    assert time_left(7) == 7
