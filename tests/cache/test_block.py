"""What entering and leaving a cache means, also where somebody cancels its tasks natively."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.cache import TTLCache
from mtaio.exceptions import CacheClosedError, StrayCancellationError
from mtaio.testing import assert_quiescent, run, settle
from tests.cache.loads import Loader

if TYPE_CHECKING:
    from collections.abc import Callable


async def slow() -> str:
    """Load for a second."""
    await anyio.sleep(1)
    return "value"


def on_asyncio(main: Callable[[], Any]) -> None:
    """Run where tasks can be cancelled without a scope."""
    run(main, backend="asyncio")


def cancel_tasks(name: str) -> int:
    """Cancel tasks natively; return how many."""
    tasks = [task for task in asyncio.all_tasks() if name in task.get_name()]
    for task in tasks:
        task.cancel()
    return len(tasks)


async def until_it_runs(cache: TTLCache[str]) -> None:
    """Wait until a load is in flight whose task has not had its first step."""
    while not cache.statistics().in_flight:  # noqa: ASYNC110 - turn by turn is the point
        await asyncio.sleep(0)


async def entered_and_returning(cache: TTLCache[str]) -> str:
    """Return from within the block."""
    async with cache:
        return await cache.get_or_set("key", slow)


async def test_returning_from_the_block() -> None:
    """A block that is left by return has no more to say."""
    cache: TTLCache[str] = TTLCache(10)
    assert await entered_and_returning(cache) == "value"
    assert_quiescent(cache)


async def forget(_key: object, _value: object, _cause: object) -> None:
    """Listen to removals."""


@pytest.mark.parametrize(
    "cache",
    [
        pytest.param(lambda: TTLCache(10, stale_while_revalidate=1), id="refreshing"),
        pytest.param(lambda: TTLCache(10, on_removed=forget), id="listener"),
    ],
)
async def test_a_cancelled_task_that_asks_after_the_block(
    cache: Callable[[], TTLCache[str]],
) -> None:
    """It was just woken: it gets its cancellation, and not an error for what it cannot know."""
    asked, woken, ended = cache(), anyio.Event(), []

    async def work() -> None:
        await woken.wait()
        try:
            await asked.get_or_set("key", slow)
        except BaseException as error:
            ended.append(type(error))
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        async with asked:
            await settle()
        woken.set()
        group.cancel_scope.cancel()
    assert ended == [anyio.get_cancelled_exc_class()]
    assert asked.statistics().misses == 0


@pytest.mark.parametrize("shielded", [False, True], ids=["body ends", "body takes its time"])
def test_a_load_cancelled_natively_before_its_first_step(*, shielded: bool) -> None:
    """Who waits for it is told at once; a block that was cancelled for it ends with an error."""

    async def main() -> None:
        cache: TTLCache[str] = TTLCache(10, name="users")
        told: list[float] = []
        ends: list[object] = []

        async def ask() -> None:
            with pytest.raises(
                CacheClosedError, match=r"^<TTLCache 'users' .*> was closed while loading key="
            ):
                await cache.get_or_set("key", slow)
            told.append(anyio.current_time())

        async def block() -> None:
            try:
                async with cache:
                    with anyio.CancelScope(shield=shielded):
                        await anyio.sleep(5)
                    ends.append("whole")
            except StrayCancellationError as error:
                ends.append(str(error))

        async with anyio.create_task_group() as group:
            group.start_soon(block)
            await anyio.sleep(0.5)
            group.start_soon(ask)
            await until_it_runs(cache)
            assert cancel_tasks("mtaio.cache load") == 1
        assert told == [0.5]
        if shielded:
            assert ends == ["whole"]
        else:
            (end,) = ends
            assert str(end).startswith(
                "a task of <TTLCache 'users' s3fifo 0 of inf, 10 s> was cancel"
            )
        assert anyio.current_time() == (5 if shielded else 0.5)
        assert_quiescent(cache)
        assert await cache.get_or_set("key", slow) == "value"

    on_asyncio(main)


def test_every_task_cancelled_natively_before_its_first_step() -> None:
    """Whatever of the cache has not started by then, nothing hangs and nothing stays behind."""

    async def main() -> None:
        cache: TTLCache[str] = TTLCache(10)
        answers: list[BaseException] = []

        async def ask() -> None:
            try:
                await cache.get_or_set("key", slow)
            except CacheClosedError as error:
                answers.append(error)

        async with anyio.create_task_group() as group:
            with pytest.raises(StrayCancellationError):  # noqa: PT012 - the block is the subject
                async with cache:
                    group.start_soon(ask)
                    await until_it_runs(cache)
                    assert cancel_tasks("mtaio.cache") >= 1
                    cancel_tasks("mtaio.cache sweep")
                    await anyio.sleep(50)
        assert len(answers) == 1
        assert anyio.current_time() == 0
        assert_quiescent(cache)

    on_asyncio(main)


def test_a_load_cancelled_natively_later() -> None:
    """Cancelled while it runs, a load has failed; the block goes on."""

    async def main() -> None:
        cache: TTLCache[str] = TTLCache(10)

        async def ask() -> None:
            with pytest.raises(StrayCancellationError, match=r"^slow raised CancelledError"):
                await cache.get_or_set("key", slow)

        async with cache, anyio.create_task_group() as group:
            group.start_soon(ask)
            await settle()
            assert cancel_tasks("mtaio.cache load") == 1
            await anyio.sleep(5)
        assert anyio.current_time() == 5
        assert cache.statistics().failed == 1
        assert_quiescent(cache)

    on_asyncio(main)


@pytest.mark.parametrize("entered", [False, True], ids=["not entered", "entered"])
def test_callers_cancelled_natively(*, entered: bool) -> None:
    """Native cancellation of a caller means what a scope's does, for the others too."""

    async def main() -> None:
        cache: TTLCache[str] = TTLCache(10)
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await cache.get_or_set("key", slow))

        async def use() -> None:
            tasks = [asyncio.create_task(ask()) for _ in range(3)]
            await anyio.sleep(0.5)
            tasks[0].cancel()
            await asyncio.wait(tasks)
            assert tasks[0].cancelled()
            assert answers == ["value", "value"]
            assert anyio.current_time() == (1 if entered else 1.5)

        if entered:
            async with cache:
                await use()
        else:
            await use()
        assert_quiescent(cache)

    on_asyncio(main)


def test_a_block_cancelled_natively() -> None:
    """A native cancellation of the body passes, and is not taken for the group's own."""

    async def main() -> None:
        cache: TTLCache[str] = TTLCache(10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), cache:
                await anyio.sleep(50)
        assert anyio.current_time() == 0.5
        assert_quiescent(cache)

    on_asyncio(main)


async def test_a_load_that_fails_when_its_block_is_left() -> None:
    """An error in the clean-up of a load changes nothing for those who were told of the end."""
    cache: TTLCache[str] = TTLCache(10, error_ttl=5)

    async def fail() -> str:
        try:
            await anyio.sleep(5)
        finally:
            raise LookupError

    async def ask() -> None:
        with pytest.raises(CacheClosedError):
            await cache.get_or_set("key", fail)

    async with anyio.create_task_group() as group, cache:
        group.start_soon(ask)
        await settle()
    assert cache.statistics().failed == 1
    assert len(cache) == 0
    assert_quiescent(cache)


def turn(loop: asyncio.AbstractEventLoop, times: int) -> None:
    """Let everything that is ready in the loop run, so many times, then leave it as it is."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
@pytest.mark.parametrize("closed", ["before", "after", "after a load"])
def test_callers_of_a_loop_that_was_killed(closed: str, *, entered: bool) -> None:
    """Neither the loads of a dead loop nor who waited for them count, whenever they are closed."""
    cache: TTLCache[str] = TTLCache(10)
    loop = asyncio.new_event_loop()
    contexts: dict[Any, contextvars.Context] = {}

    def make(loop: Any, coroutine: Any, context: Any = None, **given: Any) -> Any:
        context = contextvars.copy_context() if context is None else context
        task = asyncio.Task(coroutine, loop=loop, context=context, **given)
        contexts[coroutine] = context
        return task

    def close() -> None:
        for coroutine in [*contexts]:  # as the collector does, some time
            with suppress(RuntimeError):  # anyio's own, about the loop that is closed
                contexts.pop(coroutine).run(coroutine.close)

    async def enter() -> None:
        if entered:
            await cache.__aenter__()
        tasks = [asyncio.create_task(cache.get_or_set("key", Loader())) for _ in range(3)]
        await asyncio.wait(tasks)

    loop.set_task_factory(make)
    held = loop.create_task(enter())
    turn(loop, 20)
    assert cache.statistics().waiting == (3 if entered else 2)
    tasks = [held, *asyncio.all_tasks(loop)]
    loop.close()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            if closed == "before":
                close()
            elif closed == "after a load":
                with suppress(RuntimeError):
                    await cache.get_or_set("another", Loader())
            await stack.enter_async_context(cache)
            now = cache.statistics()
            assert not entered or now.in_flight == now.waiting == 0
            assert await cache.get_or_set("key", Loader()) == "value 1"
            assert cache.statistics().in_flight == cache.statistics().waiting == 0
        close()

    run(main)
    assert_quiescent(cache)
    for task in tasks:
        vars_of_task: Any = task
        vars_of_task._log_destroy_pending = False  # it was killed on purpose


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
async def test_a_loader_that_raises_generator_exit_is_counted_once(*, several: bool) -> None:
    """As if it were being closed; nothing is in flight afterwards."""

    async def load(*_: object) -> Any:
        await anyio.sleep(1)
        raise GeneratorExit

    cache: TTLCache[Any] = TTLCache(10)
    with pytest.raises(BaseException) as caught:  # noqa: PT011, PT012 - which one, the backend decides
        async with cache:
            if several:
                await cache.get_or_set_many(["key", "other"], load)
            else:
                await cache.get_or_set("key", load)
    assert isinstance(caught.value, GeneratorExit | BaseExceptionGroup)
    statistics = cache.statistics()
    assert statistics.in_flight == 0
    assert statistics.loads == statistics.cancelled
    assert_quiescent(cache)
