"""A cancellation that nobody asked for is a failure, wherever mtaio calls a user's function."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.cache import TTLCache
from mtaio.core import Retry, TaskExecutor
from mtaio.events import EventEmitter
from mtaio.exceptions import StrayCancellationError
from mtaio.resilience import AdaptiveLimiter, Breaker, Fallback, Hedge, Pipeline, Timeout
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager
from tests.core.strays import stray

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Fn = Callable[[], Awaitable[Any]]
    Caller = Callable[[Fn], Awaitable[Any]]


# ---- who calls a function of the user's ----


async def retried(fn: Fn) -> None:
    """Call it once."""
    await Retry(1).run(fn)


def through(make: Callable[[], Any]) -> Caller:
    """Return what calls a function through a part of a pipeline."""

    async def call(fn: Fn) -> None:
        await Pipeline(make()).run(fn)

    return call


async def fallen_back(fn: Fn) -> None:
    """Have it answer for a call that fails."""

    async def fail() -> None:
        raise LookupError

    await Pipeline(Fallback(lambda _: fn())).run(fail)


async def run_by_executor(fn: Fn) -> None:
    """Run it in the caller's task."""
    await TaskExecutor(1).run(fn)


async def submitted(fn: Fn) -> None:
    """Submit it, and wait for it."""
    async with TaskExecutor(1) as executor:
        handle = await executor.submit(fn)
        await handle.wait()
    await handle


async def item(fn: Fn, _: int) -> Any:
    """Be what is called for an item."""
    return await fn()


async def mapped(fn: Fn) -> None:
    """Call it for an item."""
    await TaskExecutor(1).map(partial(item, fn), [0])


async def mapped_with_retry(fn: Fn) -> None:
    """Call it for an item that may be tried again."""
    await TaskExecutor(1).map(partial(item, fn), [0], retry=Retry(2, on=LookupError))


async def run_in_thread(fn: Fn) -> None:
    """Let a plain function in a thread return what is awaited."""
    await TaskExecutor(1).run_in_thread(fn)


async def loaded(fn: Fn) -> None:
    """Load a value in the caller's task."""
    await TTLCache[None](10).get_or_set("key", fn)


async def loaded_together(fn: Fn) -> None:
    """Load several values in the caller's task."""
    await TTLCache[None](10).get_or_set_many(["key", "other"], lambda _: fn())


async def loaded_in_block(fn: Fn) -> None:
    """Load a value in a task of the cache."""
    async with TTLCache[None](10) as cache:
        await cache.get_or_set("key", fn)


async def emitted(emitter: EventEmitter) -> None:
    """Emit an event, and raise the last error of its handlers by itself."""
    try:
        await emitter.emit("event")
    except ExceptionGroup as group:
        error = group.exceptions[-1]
        raise error from error.__cause__


async def handled(fn: Fn, *, handlers: int = 1, concurrent: bool = False) -> None:
    """Have it handle an event."""
    emitter = EventEmitter(concurrent=concurrent)
    for _ in range(handlers):
        emitter.on("event", lambda _: fn())
    await emitted(emitter)


async def handled_by_async(fn: Fn) -> None:
    """Have an async function handle an event, and nothing else."""
    emitter = EventEmitter()

    @emitter.on("event")
    async def handle(_: object) -> None:
        await fn()

    await emitted(emitter)


async def handled_errors(fn: Fn) -> None:
    """Have it take the errors of handlers."""
    emitter = EventEmitter(on_error=lambda *_: fn())

    @emitter.on("event")
    def fail(_: object) -> None:
        raise LookupError

    await emitted(emitter)


CALLERS: dict[str, Caller] = {
    "Retry": retried,
    "Breaker": through(Breaker),
    "Hedge": through(lambda: Hedge(1)),
    "Timeout": through(lambda: Timeout(100)),
    "AdaptiveLimiter": through(AdaptiveLimiter),
    "RateLimiter": through(lambda: RateLimiter(1)),
    "ConcurrencyLimiter": through(lambda: ConcurrencyLimiter(1)),
    "TimeoutManager": through(TimeoutManager),
    "Fallback": fallen_back,
    "run": run_by_executor,
    "submit": submitted,
    "map": mapped,
    "map, retry": mapped_with_retry,
    "run_in_thread": run_in_thread,
    "load": loaded,
    "load of many": loaded_together,
    "load in a block": loaded_in_block,
    "handler": handled,
    "async handler": handled_by_async,
    "handlers": partial(handled, handlers=2),
    "handlers, concurrent": partial(handled, handlers=2, concurrent=True),
    "on_error": handled_errors,
}

table = pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)


@table
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
async def test_it_is_a_failure(caller: Caller, *, late: bool) -> None:
    """It is a StrayCancellationError that names the function, caused by the cancellation."""

    async def broken() -> None:
        if late:
            await checkpoint()
        stray()

    with pytest.raises(StrayCancellationError, match=r"although nothing here was canc") as caught:
        await caller(broken)
    assert isinstance(caught.value.__cause__, anyio.get_cancelled_exc_class())
    await anyio.sleep(1)  # the task itself is not cancelled


@table
async def test_an_await_on_what_was_cancelled_elsewhere(caller: Caller, backend: str) -> None:
    """A client whose connection has died fails; its caller is not cancelled, and not told so."""
    if backend != "asyncio":
        pytest.skip("only asyncio has futures")
    future = asyncio.get_running_loop().create_future()
    future.cancel()

    async def ask() -> None:
        await future

    with pytest.raises(StrayCancellationError):
        await caller(ask)


@table
async def test_a_cancelled_scope_is_no_failure(caller: Caller) -> None:
    """What a scope cancels is cancelled, and raises nothing else."""
    with anyio.move_on_after(1) as scope:
        await caller(anyio.sleep_forever)
    assert scope.cancelled_caught
    assert anyio.current_time() == 1


@table
@pytest.mark.parametrize("way", ["cancel", "timeout", "wait_for", "group"])
async def test_native_cancellation_is_no_failure(caller: Caller, way: str, backend: str) -> None:
    """Neither is what asyncio's own means cancel: a task, a timeout, a task group."""
    if backend != "asyncio":
        pytest.skip("Task.cancel() is asyncio's")
    call = partial(caller, anyio.sleep_forever)
    if way == "cancel":
        task: asyncio.Task[Any] = asyncio.create_task(call())  # type: ignore[arg-type] # a coroutine
        await anyio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
    elif way == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await call()
    elif way == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(), 1)
    else:

        async def fail() -> None:
            await anyio.sleep(1)
            raise LookupError

        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the block raises at its end
            async with asyncio.TaskGroup() as group:
                group.create_task(call())  # type: ignore[arg-type] # a coroutine
                group.create_task(fail())
        (error,) = caught.value.exceptions
        assert isinstance(error, LookupError)
    assert anyio.current_time() == 1


async def test_it_is_tried_again() -> None:
    """A retry makes another attempt, and counts it; once the service answers, so does the call."""
    calls = 0

    async def flaky() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            stray()
        return "answer"

    api = Pipeline(Retry(3, wait_initial=0), Timeout(100))
    assert await api.run(flaky) == "answer"
    assert api.statistics().parts["retry"].retried == 2
    calls = 0
    assert await TaskExecutor(1).map(partial(item, flaky), [0], retry=3) == ["answer"]


async def test_it_is_counted_as_a_failure() -> None:
    """By pipelines, breakers, adaptive limits and executors; a handler's policy is asked."""

    async def broken() -> None:
        stray()

    breaker = Breaker(0.5, last=2)
    limiter = AdaptiveLimiter(on=Exception)
    api = Pipeline(breaker, limiter, Timeout(100))
    with pytest.raises(StrayCancellationError):
        await api.run(broken)
    assert (api.statistics().failed, api.statistics().cancelled) == (1, 0)
    assert (breaker.statistics().failed, breaker.statistics().opened) == (1, 1)
    assert limiter.statistics().failed == 1
    executor = TaskExecutor(1)
    with pytest.raises(StrayCancellationError):
        await executor.run(broken)
    assert (executor.statistics().failed, executor.statistics().cancelled) == (1, 0)
    emitter = EventEmitter(errors="continue")
    seen: list[int] = []
    emitter.on("event", lambda _: broken())
    emitter.on("event", lambda _: seen.append(1))
    with pytest.raises(ExceptionGroup):
        await emitter.emit("event")
    assert seen == [1]
    assert emitter.statistics().failed == 1


async def test_callers_of_a_load_share_the_failure() -> None:
    """Those that wait for a load get its error, and none of them loads again."""
    calls = 0

    async def broken() -> None:
        nonlocal calls
        calls += 1
        await anyio.sleep(1)
        stray()

    cache: TTLCache[None] = TTLCache(10)
    errors = await TaskExecutor().gather(
        *(partial(cache.get_or_set, "key", broken) for _ in range(3)), return_exceptions=True
    )
    assert [type(error) for error in errors] == [StrayCancellationError] * 3
    assert calls == 1
    assert cache.statistics().failed == 1


async def test_a_cancellation_in_a_group_of_a_cancelled_caller_stays() -> None:
    """What a cancelled call raises reaches its scope whole."""

    async def call() -> None:
        with anyio.CancelScope() as inner:
            inner.cancel()
            kept: BaseException | None = None
            try:
                await checkpoint()
            except BaseException as error:  # noqa: BLE001 - raised below
                kept = error
        assert kept is not None
        with anyio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(BaseExceptionGroup) as caught:
                await Retry(2).run(partial(raises, BaseExceptionGroup("", [LookupError(), kept])))
            assert caught.value.exceptions[1] is kept
        with pytest.raises(ExceptionGroup) as caught:
            await Retry(1).run(partial(raises, BaseExceptionGroup("", [LookupError(), kept])))
        assert len(caught.value.exceptions) == 1

    async def raises(error: BaseException) -> None:
        raise error

    await call()
