"""What the calls of the limiters return, and which of their arguments have names."""

from __future__ import annotations

import inspect
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import TaskExecutor
from mtaio.exceptions import LimitTimeoutError
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedQuota,
    KeyedRateLimiter,
    Quota,
    RateLimiter,
    ResourceLimiter,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container


@pytest.mark.parametrize(
    ("cls", "numbers"),
    [
        (RateLimiter, (100, 60)),
        (KeyedRateLimiter, (100, 60)),
        (ConcurrencyLimiter, (2, 5)),
        (KeyedConcurrencyLimiter, (2, 5)),
        (ResourceLimiter, (5,)),
    ],
)
def test_second_number_needs_a_name(cls: Any, numbers: tuple[int, ...]) -> None:
    """It could be a burst, or the seconds that other libraries have in its place."""
    with pytest.raises(TypeError, match=r"takes \d positional arguments? but \d were given$"):
        cls(*numbers)


async def test_what_acquires_returns_nothing() -> None:
    """It acquires or raises, and `try_acquire` is what an ``if`` asks."""
    rate: Any = RateLimiter(1, burst=2)
    keyed: Any = KeyedRateLimiter(1)
    slots: Any = ConcurrencyLimiter(1)
    window: Any = RateLimiter.window(1, per=1)
    assert [
        await rate.acquire(),
        rate.acquire_nowait(),
        await rate.acquire(),  # which waits
        await rate.acquire(0),
        await window.acquire(),
        await keyed.acquire("key"),
        keyed.acquire_nowait("other"),
        await slots.acquire(),
        await TaskExecutor(1).gather(partial(rate.acquire, timeout=9)),
    ] == [None] * 8 + [(None,)]
    slots.release()


def test_whether_there_was_one() -> None:
    """`try_acquire` takes what is there and says so, or takes nothing and says that."""
    rate = RateLimiter(1, burst=2)
    assert [rate.try_acquire(), rate.try_acquire(2), rate.try_acquire(), rate.try_acquire()] == [
        True,
        False,
        True,
        False,
    ]
    keyed = KeyedRateLimiter(1, burst=2)
    assert [keyed.try_acquire("a", 2), keyed.try_acquire("a"), keyed.try_acquire("b")] == [
        True,
        False,
        True,
    ]
    slots = ConcurrencyLimiter(1)
    assert [slots.try_acquire(), slots.try_acquire()] == [True, False]
    slots.release()
    assert slots.try_acquire()
    assert slots.statistics().rejected == 1
    with pytest.raises(ValueError, match=r"^cannot acquire 3 tokens"):
        rate.try_acquire(3)


async def answer(number: int = 0) -> int:
    """Take a second."""
    await anyio.sleep(1)
    return number


RUNS: dict[str, tuple[Callable[[], Any], float]] = {
    "rate": (lambda: RateLimiter(0.5).run, 5),
    "slots": (lambda: ConcurrencyLimiter(1).run, 3),
    "both": (lambda: ResourceLimiter(rate=0.5, concurrency=1).run, 5),
    "keyed slots": (lambda: partial(KeyedConcurrencyLimiter(1).run, key="user"), 3),
    "keyed": (lambda: partial(KeyedRateLimiter(0.5).run, key="user"), 5),
}
"""What calls a function that takes a second, and when three calls have ended."""


@pytest.mark.parametrize("under", RUNS)
async def test_run_makes_one_call(under: str) -> None:
    """A function with its arguments, or an awaitable, under the limit; the result comes back."""
    make, seconds = RUNS[under]
    run = make()
    assert await run(answer, 2) == 2
    assert await run(answer(3)) == 3
    assert await run(partial(answer, number=4)) == 4
    assert anyio.current_time() == seconds


@pytest.mark.parametrize("under", RUNS)
async def test_run_refuses_and_closes(under: str) -> None:
    """A call that cannot be, or that is cancelled as it waits, is closed and takes nothing."""
    run = RUNS[under][0]()
    call = answer(1)
    with pytest.raises(TypeError, match=r"^fn=<coroutine .*> is already a call, and takes no arg"):
        await run(call, 1)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'number'"):
        await run(answer, number=1)
    async with anyio.create_task_group() as group:
        group.start_soon(run, answer)
        await anyio.sleep(0.5)
        call = answer(1)
        with anyio.move_on_after(0.25) as scope:
            await run(call)
    assert scope.cancelled_caught
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED
    await run(answer)


async def test_run_by_key() -> None:
    """The calls of one key wait for each other, those of another do not."""
    limiter = KeyedRateLimiter(0.5)
    assert await limiter.run(answer, 1, key="a") == 1
    assert await limiter.run(answer, 2, key="b") == 2
    assert anyio.current_time() == 2
    await limiter.run(answer, key="a")
    assert anyio.current_time() == 3
    unkeyed: Any = limiter.run
    with pytest.raises(TypeError, match=r"missing 1 required keyword-only argument: 'key'$"):
        await unkeyed(answer)


ROOM = 200
FULL: dict[str, Callable[[], Callable[[], Awaitable[Any]]]] = {
    "rate": lambda: partial(RateLimiter(1, burst=ROOM).acquire, timeout=0),
    "window": lambda: partial(RateLimiter.window(ROOM, per=60).acquire, timeout=0),
    "keyed rate": lambda: partial(KeyedRateLimiter(1, burst=ROOM).acquire, "key", timeout=0),
    "slots": lambda: partial(ConcurrencyLimiter(ROOM).acquire, timeout=0),
    "keyed slots": lambda: partial(KeyedConcurrencyLimiter(ROOM).acquire, "key", timeout=0),
    "quota": lambda: partial(Quota(requests=ROOM, tokens=9, per=600).acquire, timeout=0, tokens=0),
    "keyed quota": lambda: partial(KeyedQuota(requests=ROOM, per=600).acquire, "key", timeout=0),
}


@pytest.mark.parametrize(("tasks", "doomed"), [(400, ()), (150, range(50, 100))])
@pytest.mark.parametrize("kind", FULL)
async def test_timeout_0_refuses_nobody_for_whom_there_is_room(
    kind: str, tasks: int, doomed: Container[int]
) -> None:
    """One call in 64 yields; those that come meanwhile wait for their turn, and no longer."""
    acquire = FULL[kind]()
    seen: Counter[str] = Counter()

    async def ask(number: int) -> None:
        with anyio.CancelScope() as scope:
            if number in doomed:
                scope.cancel()
            try:
                await acquire()
            except LimitTimeoutError:
                seen["refused"] += 1
            else:
                seen["granted"] += 1
        seen["cancelled"] += scope.cancelled_caught

    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        for number in range(tasks):
            group.start_soon(ask, number)
    assert seen["refused"] == max(tasks - ROOM, 0)
    assert seen.total() == tasks
    assert anyio.current_time() == began
