"""Who hears what became of an entry, plain and async, whatever the listener does."""

# ruff: noqa: D102 - only __call__, which the class explains

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from mtaio.cache import RemovalCause, TTLCache
from mtaio.cache._listeners import BACKLOG
from mtaio.testing import assert_no_checkpoints, run, settle

if TYPE_CHECKING:
    from collections.abc import Callable


class Listener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, Any, RemovalCause]] = []

    def __call__(self, key: Any, value: Any, cause: RemovalCause) -> None:
        self.heard.append((key, value, cause))


class AsyncListener(Listener):
    """Needs half a second for each."""

    async def __call__(self, key: Any, value: Any, cause: RemovalCause) -> None:  # type: ignore[override] # the other kind
        await anyio.sleep(0.5)
        super().__call__(key, value, cause)


@pytest.mark.parametrize("read", [TTLCache.get_nowait, TTLCache.get])
async def test_expired_value_is_reported_by_the_read_that_finds_it(read: Any) -> None:
    """Not by what happens next in the cache."""
    listener = Listener()
    cache: TTLCache[int] = TTLCache(0.5, max_size=2, on_removed=listener)
    cache.set_nowait("key", 1)
    await anyio.sleep(0.5)
    found = read(cache, "key")
    assert (await found if inspect.isawaitable(found) else found) is None
    assert listener.heard == [("key", 1, RemovalCause.EXPIRED)]


async def test_every_cause() -> None:
    """Each value is reported once when it leaves, with its cause."""
    listener = Listener()
    cache: TTLCache[int] = TTLCache(10, max_size=2, policy="fifo", on_removed=listener)
    cache.set_nowait("a", 1)
    cache.set_nowait("a", 2)
    cache.set_nowait("b", 3)
    cache.set_nowait("c", 4)
    cache.delete_nowait("b")
    cache.set_nowait("d", 5, tags=["t"])
    cache.invalidate_tag_nowait("t")
    cache.set_nowait("e", 6, 0.5)
    await anyio.sleep(0.5)
    assert cache.get_nowait("e") is None
    cache.clear_nowait()
    assert listener.heard == [
        ("a", 1, RemovalCause.REPLACED),
        ("a", 2, RemovalCause.EVICTED),
        ("b", 3, RemovalCause.DELETED),
        ("d", 5, RemovalCause.DELETED),
        ("e", 6, RemovalCause.EXPIRED),
        ("c", 4, RemovalCause.CLEARED),
    ]


async def test_loads_are_reported_too() -> None:
    """A value that a load replaces or evicts is reported like any other."""
    listener = Listener()
    cache: TTLCache[int] = TTLCache(10, max_size=1, on_removed=listener)

    async def load() -> int:
        return 7

    cache.set_nowait("a", 1)
    await cache.get_or_set("b", load)
    await cache.refresh("b", load)
    assert listener.heard == [("a", 1, RemovalCause.EVICTED), ("b", 7, RemovalCause.REPLACED)]


def test_a_listener_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged; the operation is done, and the next removals are reported."""
    heard: list[object] = []

    def fail(key: object, *_: object) -> None:
        heard.append(key)
        msg = "in the listener"
        raise LookupError(msg)

    cache: TTLCache[int] = TTLCache(10, on_removed=fail, name="users")
    cache.set_many_nowait({"a": 1, "b": 2})
    assert cache.delete_many_nowait(["a", "b"]) == 2
    assert heard == ["a", "b"]
    assert len(caplog.records) == 2
    assert caplog.records[0].name == "mtaio.cache"
    text = caplog.records[0].getMessage()
    assert text.startswith("on_removed of <TTLCache 'users' ")
    assert text.endswith("> failed for key='a' (deleted)")


def test_what_is_no_exception_passes_and_loses_nothing() -> None:
    """KeyboardInterrupt in a listener comes out of the operation; the rest is told later."""
    heard: list[object] = []

    def interrupt(key: object, *_: object) -> None:
        heard.append(key)
        if key == "a":
            raise KeyboardInterrupt

    cache: TTLCache[int] = TTLCache(10, on_removed=interrupt)
    cache.set_many_nowait({"a": 1, "b": 2})
    with pytest.raises(KeyboardInterrupt):
        cache.clear_nowait()
    assert len(cache) == 0
    cache.set_nowait("c", 3)
    assert heard == ["a", "b"]


def test_a_listener_may_change_the_cache() -> None:
    """Changes made by the listener are reported after what it is being told, without recursion."""
    heard: list[object] = []

    def again(key: object, value: int, cause: RemovalCause) -> None:
        heard.append((key, value, cause))
        if value < 1000:
            cache.set_nowait("key", value + 1)

    cache: TTLCache[int] = TTLCache(10, on_removed=again)
    cache.set_nowait("key", 0)
    cache.set_nowait("key", 1)
    assert heard[-1] == ("key", 1000, RemovalCause.REPLACED)
    assert len(heard) == 2000


def test_plain_listener_runs_outside_the_lock() -> None:
    """While the listener runs, another thread can use the cache."""
    seen: list[object] = []

    def listen(*_: object) -> None:
        thread = threading.Thread(target=lambda: seen.append(cache.get_nowait("other")))
        thread.start()
        thread.join(10)

    cache: TTLCache[int] = TTLCache(10, on_removed=listen)
    cache.set_nowait("other", 1)
    cache.set_nowait("key", 1)
    cache.delete_nowait("key")
    assert seen == [1]


def test_plain_listener_that_waits_holds_up_no_other_thread() -> None:
    """A thread tells of its change at once, though the listener is busy in another."""
    heard: list[object] = []
    inside, release = threading.Event(), threading.Event()

    def listen(key: object, *_: object) -> None:
        if key == "slow":
            inside.set()
            assert release.wait(60)
        heard.append(key)

    cache: TTLCache[int] = TTLCache(10, on_removed=listen)
    cache.set_many_nowait({"slow": 1, "fast": 2})
    thread = threading.Thread(target=cache.delete_nowait, args=("slow",))
    thread.start()
    try:
        assert inside.wait(60)
        cache.delete_nowait("fast")
        assert heard == ["fast"]
    finally:
        release.set()
        thread.join(60)
    assert heard == ["fast", "slow"]


def test_a_plain_function_that_returns_an_awaitable(caplog: pytest.LogCaptureFixture) -> None:
    """A lambda around an async listener is told how to be one."""
    listener = AsyncListener()
    cache: TTLCache[int] = TTLCache(10, on_removed=lambda *removal: listener(*removal))  # noqa: PLW0108 - a plain function is the point
    cache.set_nowait("key", 1)
    cache.delete_nowait("key")
    error = caplog.records[0].exc_info
    assert error is not None
    assert str(error[1]).startswith("on_removed=<function ")
    assert str(error[1]).endswith("Write it with 'async def', so that the cache knows.")


CHANGES: list[Callable[[TTLCache[int]], object]] = [
    lambda cache: cache.set_nowait("key", 1),
    lambda cache: cache.set_many_nowait({"key": 1}),
    lambda cache: cache.touch_nowait("key"),
    lambda cache: cache.increment_nowait("key"),
    lambda cache: cache.delete_nowait("key"),
    lambda cache: cache.delete_many_nowait(["key"]),
    lambda cache: cache.clear_nowait(),
    lambda cache: cache.invalidate_tag_nowait("tag"),
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
async def test_async_listener_needs_an_entered_cache(
    change: Callable[[TTLCache[int]], object],
) -> None:
    """Outside its block nothing can be changed, because the listener could not be told."""
    listener = AsyncListener()
    cache: TTLCache[int] = TTLCache(10, on_removed=listener)
    async with cache:
        cache.set_nowait("key", 1, 0.5)
    message = (
        r"^<TTLCache .*> has an async on_removed, but is not entered: it could not be awaited\."
    )
    with pytest.raises(RuntimeError, match=message):
        change(cache)
    with pytest.raises(RuntimeError, match=message):
        await cache.get_or_set("new", partial(anyio.sleep, 0))  # type: ignore[arg-type] # not called
    assert cache.get_nowait("key") == 1
    await anyio.sleep(0.5)
    assert cache.get_nowait("key") is None
    assert len(cache) == 1
    assert listener.heard == []
    async with cache:
        assert cache.get_nowait("key") is None
    assert listener.heard == [("key", 1, RemovalCause.EXPIRED)]


async def test_async_listener_is_told_in_order() -> None:
    """It is told of one after another, beside the operations; leaving waits until it was told."""
    listener = AsyncListener()
    cache: TTLCache[int] = TTLCache(100, on_removed=listener)
    async with cache:
        for number in range(4):
            cache.set_nowait(number, number)
        with assert_no_checkpoints():
            await cache.delete(0)
            await cache.delete(1)
        await anyio.sleep(0.75)
        assert [key for key, _, _ in listener.heard] == [0]
        await cache.delete(2)
        await anyio.sleep(5)
        await cache.delete(3)
    assert [key for key, _, _ in listener.heard] == [0, 1, 2, 3]
    assert anyio.current_time() == 6.25


async def test_async_listener_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged, and it is told of the next."""
    heard: list[object] = []

    async def fail(key: object, *_: object) -> None:
        heard.append(key)
        await anyio.lowlevel.checkpoint()
        raise LookupError

    async with TTLCache[int](10, on_removed=fail) as cache:
        cache.set_many_nowait({"a": 1, "b": 2})
        cache.clear_nowait()
    assert heard == ["a", "b"]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
async def test_listener_that_raises_a_stray_cancellation(
    backend: str, caplog: pytest.LogCaptureFixture, *, plain: bool
) -> None:
    """A listener that asks for what somebody else has cancelled fails, and nothing else does."""
    if backend != "asyncio":
        pytest.skip("only asyncio has cancellation that comes from nowhere")
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()

    async def wait(*_: object) -> None:
        await future

    listener: Any = (lambda *_: future.result()) if plain else wait
    async with TTLCache[int](1, on_removed=listener) as cache:
        cache.set_nowait("key", 1)
        await anyio.sleep(3)
        assert len(cache) == 0
        cache.set_nowait("key", 1)
        assert await cache.delete("key")
        await settle()
        assert len(caplog.records) == 2


async def test_async_listener_of_a_block_that_fails() -> None:
    """When the block ends with an error the listener is not waited for; what is lost is counted."""
    listener = AsyncListener()
    cache: TTLCache[int] = TTLCache(10, on_removed=listener)
    with pytest.raises(LookupError):  # noqa: PT012 - the block is the subject
        async with cache:
            cache.set_many_nowait(dict.fromkeys(range(5), 0))
            cache.clear_nowait()
            await anyio.sleep(0.75)
            raise LookupError
    assert len(listener.heard) == 1
    assert cache.statistics().dropped == 3


async def test_leaving_is_cancelled_while_the_listener_is_told() -> None:
    """Cancellation reaches the wait for the listener, and the block ends all the same."""
    listener = AsyncListener()
    cache: TTLCache[int] = TTLCache(10, on_removed=listener)
    with anyio.move_on_after(0.75) as scope:
        async with cache:
            cache.set_many_nowait(dict.fromkeys(range(5), 0))
            cache.clear_nowait()
    assert scope.cancelled_caught
    assert len(listener.heard) == 1
    async with cache:
        assert cache.statistics().dropped == 3


@pytest.mark.parametrize("elsewhere", [True, False], ids=["other thread", "listener"])
async def test_leaving_ends_though_changes_go_on(*, elsewhere: bool) -> None:
    """Leaving waits for what had left by then; of what leaves meanwhile it does not tell."""
    heard: list[object] = []

    async def listen(_key: object, value: int, _cause: RemovalCause) -> None:
        heard.append(value)
        await anyio.sleep(0.5)
        for _ in range(2):  # faster than the listener
            if elsewhere:
                await anyio.to_thread.run_sync(cache.set_nowait, "key", value + 10)
            else:
                cache.set_nowait("key", value + 10)

    cache: TTLCache[int] = TTLCache(10, on_removed=listen)
    for entered in (1, 2):
        started = anyio.current_time()
        with anyio.fail_after(60):
            async with cache:
                cache.clear_nowait()
                for value in range(4):
                    cache.set_nowait("key", value)
        assert heard[-3:] == [0, 1, 2]
        assert len(heard) == 3 * entered + (entered == 2)  # and what clear_nowait removed
        assert anyio.current_time() - started == 0.5 * (3 + (entered == 2))
        assert cache.statistics().dropped == 6 * entered + 2 * (entered == 2)


async def test_backlog_of_an_async_listener_is_bounded() -> None:
    """Of more than ten thousand that wait it is not told; they are counted."""
    listener = AsyncListener()
    cache: TTLCache[int] = TTLCache(10, on_removed=listener)
    with anyio.CancelScope() as scope:
        async with cache:
            await settle()
            cache.set_many_nowait(dict.fromkeys(range(BACKLOG + 5), 0))
            cache.clear_nowait()
            assert cache.statistics().dropped == 5
            scope.cancel()
    assert len(cache) == 0


async def test_async_listener_hears_of_other_threads() -> None:
    """A change made in another thread is told in the loop that entered the cache."""
    listener = AsyncListener()
    async with TTLCache[int](10, on_removed=listener) as cache:
        await settle()
        cache.set_nowait("key", 1)
        await anyio.to_thread.run_sync(cache.delete_nowait, "key")
        await anyio.sleep(1)
        assert len(listener.heard) == 1
        await anyio.to_thread.run_sync(cache.set_nowait, "key", 1)
        await anyio.to_thread.run_sync(cache.delete_nowait, "key")
    assert len(listener.heard) == 2


async def test_expiry_is_reported_by_an_entered_cache() -> None:
    """What expires unseen is reported when it is removed, a second later at most."""
    listener = Listener()
    async with TTLCache[int](1.5, on_removed=listener) as cache:
        cache.set_nowait("key", 1)
        await anyio.sleep(2)
        await settle()
        assert listener.heard == [("key", 1, RemovalCause.EXPIRED)]


async def test_expiry_set_by_another_thread() -> None:
    """A shorter time that another thread sets wakes the task that removes what expires."""
    async with TTLCache[int](100) as cache:
        cache.set_nowait("long", 1)
        await settle()
        await anyio.to_thread.run_sync(cache.set_nowait, "short", 1, 1.5)
        await anyio.sleep(2)
        await settle()
        assert len(cache) == 1


def test_async_callables_are_known() -> None:
    """An async method, a partial and an object with an async __call__ are async listeners."""
    listener = AsyncListener()
    for each in (listener, listener.__call__, partial(listener.__call__)):
        cache: TTLCache[int] = TTLCache(10, on_removed=each)
        with pytest.raises(
            RuntimeError, match=r"^<TTLCache .*> has an async on_removed, but is no"
        ):
            cache.set_nowait("key", 1)


def test_what_is_left_of_a_killed_loop_leaves_the_next_block_alone() -> None:
    """The end of a dead task that told the listener does not disturb the one that tells now."""
    told: list[object] = []

    async def listen(key: object, *_: object) -> None:
        told.append(key)

    cache: TTLCache[int] = TTLCache(60, on_removed=listen)
    loop = asyncio.new_event_loop()
    context = contextvars.copy_context()

    async def enter() -> None:
        await cache.__aenter__()
        for _ in range(10):  # its tasks are at their waits
            await asyncio.sleep(0)
        loop.stop()
        await anyio.sleep(60)

    held = loop.create_task(enter(), context=context)
    loop.run_forever()
    tasks: list[Any] = [*asyncio.all_tasks(loop)]
    loop.close()

    async def main() -> None:
        async with cache:
            await settle()
            for task in tasks:
                if task is not held and "mtaio.cache sweep" not in task.get_name():
                    coroutine = task.get_coro()
                    with suppress(RuntimeError):  # anyio's own, about the loop that is closed
                        context.run(coroutine.close)
            await cache.set("key", 1)
            await cache.delete("key")
        assert told == ["key"]

    run(main)
    assert cache.statistics().dropped == 0
    with suppress(RuntimeError):
        context.run(cast("Any", held.get_coro()).close)
