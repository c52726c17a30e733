"""Assertions on what is left over, and on checkpoints."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import mtaio
from mtaio import core, resilience, resources
from mtaio.core import ExternalPool, TaskExecutor
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
)
from mtaio.testing import (
    assert_checkpoints,
    assert_no_checkpoints,
    assert_quiescent,
    current_simulation,
    run,
    settle,
)
from tests.core.manual_pool import ManualPool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping


async def left_by(thing: object, use: Callable[[], Coroutine[Any, Any, object]]) -> str:
    """Tell what assert_quiescent() says while a task uses a thing, which is quiet otherwise."""
    assert_quiescent(thing)
    async with anyio.create_task_group() as group:
        group.start_soon(use)
        await settle()
        with pytest.raises(AssertionError, match=r"^not quiescent: ") as caught:
            assert_quiescent(thing)
        group.cancel_scope.cancel()
    assert_quiescent(thing)
    return str(caught.value)


async def hold(thing: Any) -> None:
    """Hold something for ever."""
    async with thing:
        await anyio.sleep_forever()


async def test_anyio_lock() -> None:
    """A lock that is held, and the tasks that wait for it, are told."""
    lock = anyio.Lock()
    assert "locked=True" in await left_by(lock, lambda: hold(lock))
    async with anyio.create_task_group() as group:
        group.start_soon(hold, lock)
        group.start_soon(hold, lock)
        await settle()
        with pytest.raises(AssertionError, match=r"has locked=True, tasks_waiting=1$"):
            assert_quiescent(lock)
        group.cancel_scope.cancel()
    assert_quiescent(lock)


async def test_anyio_primitives() -> None:
    """Tasks that wait at a primitive of anyio, or hold it, are told."""
    event = anyio.Event()
    assert "tasks_waiting=1" in await left_by(event, event.wait)
    condition = anyio.Condition()
    assert "locked=True" in await left_by(condition, lambda: hold(condition))

    async def wait() -> None:
        async with condition:
            await condition.wait()

    assert "tasks_waiting=1" in await left_by(condition, wait)
    limiter = anyio.CapacityLimiter(2)
    assert "borrowed_tokens=1" in await left_by(limiter, lambda: hold(limiter))
    empty = anyio.Semaphore(0)
    assert "tasks_waiting=1" in await left_by(empty, empty.acquire)
    semaphore = anyio.Semaphore(2, max_value=2)
    assert "taken=1" in await left_by(semaphore, lambda: hold(semaphore))


async def test_anyio_semaphore_without_a_maximum() -> None:
    """Of a semaphore that was made without ``max_value`` nobody can tell what is held."""
    semaphore = anyio.Semaphore(2)
    async with semaphore:
        assert_quiescent(semaphore)


async def test_anyio_streams() -> None:
    """An open stream, what is in its buffer and the tasks that wait at it are told."""
    send, receive = anyio.create_memory_object_stream[int](1)
    with pytest.raises(AssertionError, match=r"open_send_streams=1, open_receive_streams=1$"):
        assert_quiescent(send)
    await send.send(1)
    with pytest.raises(AssertionError, match=r" has current_buffer_used=1, open_send_streams=1, "):
        assert_quiescent(send)
    async with anyio.create_task_group() as group:
        group.start_soon(send.send, 2)
        await settle()
        with pytest.raises(AssertionError, match=r"tasks_waiting_send=1"):
            assert_quiescent(send)
        assert await receive.receive() == 1
        assert await receive.receive() == 2
    send.close()
    receive.close()
    assert_quiescent(send, receive)


async def test_mtaio_limiters() -> None:
    """Tasks that wait at a limiter of mtaio, or hold a part of it, are told."""
    concurrency = ConcurrencyLimiter(1)
    assert "in_use=1" in await left_by(concurrency, lambda: hold(concurrency))
    async with concurrency:
        with pytest.raises(AssertionError):
            assert_quiescent(concurrency)
    rate = RateLimiter(rate=0.001, burst=1)
    await rate.acquire()
    assert "waiting=1" in await left_by(rate, rate.acquire)
    keyed = KeyedRateLimiter(rate=0.001, burst=1)
    await keyed.acquire("key")
    assert "waiting=1" in await left_by(keyed, lambda: keyed.acquire("key"))
    combined = ResourceLimiter(concurrency=1)
    assert "in_flight=1" in await left_by(combined, lambda: combined.run(anyio.sleep_forever))
    timed = ResourceLimiter(timeout=60)
    assert "in_flight=1" in await left_by(timed, lambda: timed.run(anyio.sleep_forever))


async def test_mtaio_executor() -> None:
    """What runs in an executor is told."""
    async with TaskExecutor(max_workers=1) as executor:
        assert "in_flight=1" in await left_by(executor, lambda: executor.run(anyio.sleep_forever))
        await executor.submit(anyio.sleep, 1)
        with pytest.raises(AssertionError, match=r"submitted=1"):
            assert_quiescent(executor)
    assert_quiescent(executor)


async def test_mtaio_pool() -> None:
    """What a pool has is told, also when nobody waits for it any more."""
    pool = ManualPool()
    calls = ExternalPool(pool)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(TaskExecutor().run, int, via=calls))
        await settle()
        pool.sent[0].begin()
        group.cancel_scope.cancel()
    with pytest.raises(AssertionError, match=r"in_use=1"):
        assert_quiescent(calls)
    pool.end_all()
    assert_quiescent(calls)


def test_every_primitive_of_mtaio() -> None:
    """Each public class of mtaio that has statistics can be looked at, or says that it cannot."""
    looked_at = set()
    for package in (core, resilience, resources):
        for name in package.__all__:
            thing = getattr(package, name)
            if isinstance(thing, type) and callable(getattr(thing, "statistics", None)):
                looked_at.add(name)
    assert looked_at == {
        "AdaptiveLimiter",
        "Breaker",
        "Budget",
        "ConcurrencyLimiter",
        "ExternalPool",
        "Fallback",
        "Hedge",
        "Keyed",
        "KeyedConcurrencyLimiter",
        "KeyedQuota",
        "KeyedRateLimiter",
        "PeriodicTask",
        "Pipeline",
        "Quota",
        "QuotaPart",
        "RateLimiter",
        "ResourceLimiter",
        "Retry",
        "TaskExecutor",
        "Timeout",
        "TimeoutManager",
    }
    with pytest.raises(TypeError, match=r"^assert_quiescent\(\) cannot tell about .*Timeout"):
        assert_quiescent(mtaio.TimeoutManager(1))


async def test_all_that_are_busy_are_told() -> None:
    """Of several objects each that is busy is told, with its fields."""
    locks = [anyio.Lock() for _ in range(3)]
    async with AsyncExitStack() as stack:
        for lock in locks[:2]:
            await stack.enter_async_context(lock)
        with pytest.raises(AssertionError) as caught:
            assert_quiescent(*locks)
    assert str(caught.value).count("locked=True") == 2
    assert repr(locks[2]) not in str(caught.value)


def test_nested_statistics() -> None:
    """Statistics within statistics are looked at, and other values are passed over."""

    @dataclass
    class Inner:
        waiting: int
        name: str = "inner"

    @dataclass
    class Outer:
        inner: Inner | None
        kind: type = Inner
        parts: Mapping[str, object] = field(default_factory=dict)

    class Thing:
        def __init__(self, inner: Inner | None) -> None:
            self.inner = inner

        def __repr__(self) -> str:
            return "thing"

        def statistics(self) -> Outer:
            return Outer(self.inner)

    class Whole(Thing):
        def statistics(self) -> Any:
            return Outer(None, parts={"one": self.inner, "two": 2})

    for kind in (Thing, Whole):
        assert_quiescent(kind(Inner(0)))
        with pytest.raises(AssertionError, match=r"^not quiescent: thing has waiting=2$"):
            assert_quiescent(kind(Inner(2)))
    with pytest.raises(TypeError, match=r"^assert_quiescent\(\) cannot tell about thing: it has n"):
        assert_quiescent(Thing(None))


@pytest.mark.parametrize(
    "thing", [1, None, anyio.ResourceGuard(), "statistics"], ids=["number", "None", "guard", "text"]
)
def test_objects_that_cannot_be_judged(thing: object) -> None:
    """An object that says nothing of waiters is refused, rather than passed."""
    with pytest.raises(TypeError, match=r"^assert_quiescent\(\) cannot tell about .* it has no st"):
        assert_quiescent(thing)


def test_nothing_to_look_at() -> None:
    """assert_quiescent() without an object is a slip that is named."""
    with pytest.raises(TypeError, match=r"^assert_quiescent\(\) was given nothing to look at\. Pa"):
        assert_quiescent()


# ---- checkpoints ---------------------------------------------------------------------------------


async def test_checkpoints_are_seen() -> None:
    """Whatever lets others run is a checkpoint; what returns at once is none."""
    ways: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
        lambda: anyio.sleep(5),
        anyio.lowlevel.checkpoint,
        anyio.lowlevel.cancel_shielded_checkpoint,
        settle,
        lambda: current_simulation().advance(0),
    )
    for suspend in ways:
        with assert_checkpoints():
            await suspend()
        with (
            pytest.raises(
                AssertionError,
                match=r"^the block should not be a checkpoint, but the event loop turned in it$",
            ),
            assert_no_checkpoints(),
        ):
            await suspend()


async def test_no_checkpoint_is_seen() -> None:
    """What does not let others run is not a checkpoint, even if it is awaited."""

    async def nothing() -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()

    limiter = RateLimiter(rate=1, burst=5)
    await limiter.acquire()
    calls: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (nothing, limiter.acquire)
    for call in calls:
        with assert_no_checkpoints():
            await call()
        with (
            pytest.raises(
                AssertionError,
                match=r"^the block should be a checkpoint, but the event loop did not turn in it$",
            ),
            assert_checkpoints(),
        ):
            await call()


async def test_checkpoints_beside_busy_tasks() -> None:
    """Steps that others take before and after the block do not count."""

    async def spin() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(spin)
        await anyio.lowlevel.checkpoint()
        with assert_no_checkpoints():
            pass
        with assert_checkpoints():
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()


async def test_assertions_within_assertions() -> None:
    """The blocks may be nested."""
    with assert_checkpoints():
        with assert_no_checkpoints():
            pass
        await anyio.lowlevel.checkpoint()
        with assert_no_checkpoints(), assert_no_checkpoints():
            pass


@pytest.mark.parametrize("block", [assert_checkpoints, assert_no_checkpoints])
async def test_block_that_raises_is_not_judged(block: Any) -> None:
    """An error in the block is what is told."""
    with pytest.raises(LookupError), block():
        raise LookupError
    with suppress(LookupError), block():
        await anyio.lowlevel.checkpoint()
        raise LookupError


@pytest.mark.parametrize("block", [assert_checkpoints, assert_no_checkpoints])
def test_checkpoints_need_a_simulation(block: Any) -> None:
    """Where no simulation runs there is nothing to count, and the refusal says how to get one."""

    def ask() -> None:
        with (
            pytest.raises(
                RuntimeError,
                match=rf"^{block.__name__}\(\) cannot count: no simulation is running\. Start one",
            ),
            ExitStack() as stack,
        ):
            stack.enter_context(block())

    async def real() -> None:
        ask()

    async def other() -> None:
        await anyio.to_thread.run_sync(ask)

    ask()
    anyio.run(real)
    run(other)
