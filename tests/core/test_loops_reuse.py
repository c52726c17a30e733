"""One executor, several event loops: one after another on either backend, never two at once."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from anyio import from_thread, to_thread

from mtaio.core import TaskExecutor
from mtaio.testing import run, settle
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

LOOPS = (*BACKENDS, "asyncio")


def everything(executor: TaskExecutor) -> Callable[[], Coroutine[None, None, None]]:
    """Return a scenario that uses all there is in an executor, with tasks that wait for slots."""

    async def item(x: int) -> int:
        await anyio.sleep(1)
        return x

    async def service(*, task_status: anyio.abc.TaskStatus[str]) -> None:
        task_status.started("ready")
        await anyio.sleep_forever()

    async def scenario() -> None:
        assert await executor.map(item, range(5)) == [0, 1, 2, 3, 4]
        assert await executor.gather(item(1), executor.run(item, 2)) == (1, 2)
        assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)
        async with executor:
            assert (await executor.start(service)).start_value == "ready"
            handles = [await executor.submit(item, x) for x in range(5)]
            assert [await handle for handle in handles] == [0, 1, 2, 3, 4]
            assert await executor.drain()
        async with executor:
            await executor.submit(item, 1)
        statistics = executor.statistics()
        assert (statistics.waiting, statistics.submitted, statistics.threads_in_use) == (0, 0, 0)

    return scenario


@pytest.mark.parametrize("thrown_away", [True, False])
def test_after_a_loop_that_was_abandoned(thrown_away: bool) -> None:  # noqa: FBT001 - a parameter
    """What a closed loop has left lying is written off, and gives nothing back afterwards."""
    executor = TaskExecutor(1, max_pending=9)

    async def submit() -> None:
        async with executor:
            await executor.submit(anyio.sleep, 9)
            await (await executor.submit(executor.map, anyio.sleep, [9, 9]))

    async def call() -> None:
        await executor.gather(*[lambda: anyio.sleep(9)] * 3)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # tasks destroyed, it would say
    tasks = [loop.create_task(each()) for each in (submit, call)]
    loop.run_until_complete(asyncio.sleep(0.01))
    assert executor.statistics().waiting >= 2
    loop.close()
    del loop
    if thrown_away:
        tasks.clear()
    for backend in LOOPS:
        run(everything(executor), backend=backend)
        gc.collect()
    assert executor.statistics().in_use == 0


def test_throwing_away_an_abandoned_block_disturbs_no_other() -> None:
    """The coroutine of a closed loop, thrown away before or while another block runs."""
    executor = TaskExecutor(1, max_pending=9)

    async def block() -> None:
        async with executor:
            await executor.submit(anyio.sleep, 9)
            await anyio.sleep(9)

    def abandoned() -> Coroutine[None, None, None]:
        loop, coroutine = asyncio.new_event_loop(), block()
        loop.set_exception_handler(lambda _loop, _context: None)
        loop.create_task(coroutine)
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        return coroutine

    async def enter() -> None:
        async with executor:
            handle = await executor.submit(anyio.sleep, 1)
            coroutines[1].close()
            executor.submit_nowait(anyio.sleep, 1)
            await handle
        assert anyio.current_time() == 2

    coroutines = [abandoned()]
    coroutines[0].close()
    coroutines.append(abandoned())
    run(enter)
    gc.collect()


@pytest.mark.parametrize("threads", [True, False])
def test_closing_an_abandoned_call_in_another_context(threads: bool) -> None:  # noqa: FBT001 - a parameter
    """The garbage collector does so, while other calls of the closed loop wait: it is no error."""
    executor = TaskExecutor(1)

    async def call() -> None:
        if threads:
            await executor.run_in_thread(lambda: asyncio.sleep(9))
        else:
            await executor.run(asyncio.sleep, 9)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # tasks destroyed, it would say
    coroutines = [call(), call()]
    tasks = [loop.create_task(each) for each in coroutines]
    loop.run_until_complete(asyncio.sleep(0.2))
    loop.close()
    for each in coroutines:
        each.close()
    assert executor.statistics().in_use == 0
    tasks.clear()


async def test_submitting_from_another_loop_is_refused() -> None:
    """A block belongs to the loop that entered it; the error names the two ways out."""
    refused: list[str] = []

    async def elsewhere() -> None:
        for method in (executor.submit, cast("Any", executor).start):
            with pytest.raises(
                RuntimeError, match=r"^<TaskExecutor .*> was entered in another "
            ) as e:
                await method(anyio.sleep, 1)
            refused.append(str(e.value))
        with pytest.raises(RuntimeError, match=r"was entered in another event loop"):
            executor.submit_nowait(anyio.sleep, 1)
        with pytest.raises(RuntimeError, match=r"was entered in another event loop"):
            await executor.drain()
        with pytest.raises(RuntimeError, match=r"is already entered"):
            async with executor:
                pass

    def other_loop() -> None:
        for backend in BACKENDS:
            anyio.run(elsewhere, backend=backend)

    async with TaskExecutor(1) as executor:
        await to_thread.run_sync(other_loop)
        handle = await executor.submit(anyio.sleep, 1)
        await handle
    assert "anyio.from_thread.run()" in refused[0]
    assert len(refused) == 2 * len(BACKENDS)


async def test_handle_belongs_to_its_loop() -> None:
    """Waiting and cancelling elsewhere is refused, until the task has ended."""
    async with TaskExecutor(1) as executor:
        handle = await executor.submit(anyio.sleep, 1)

        async def wait() -> None:
            await handle

        def thread() -> None:
            with pytest.raises(
                RuntimeError, match=r"^cannot wait for <TaskHandle .* here: it runs"
            ):
                anyio.run(wait)
            with pytest.raises(RuntimeError, match=r"^cannot cancel <TaskHandle .* here: it runs"):
                handle.cancel()
            with pytest.raises(RuntimeError, match=r"^cannot cancel <TaskHandle"):
                executor.cancel()
            from_thread.run(wait)

        await to_thread.run_sync(thread)
        assert anyio.current_time() == 1

        def thread_afterwards() -> None:
            anyio.run(wait)
            handle.cancel()

        await to_thread.run_sync(thread_afterwards)


async def test_submitting_from_a_thread_is_refused() -> None:
    """A thread has no loop of its own; through anyio it gets to the right one."""
    async with TaskExecutor(1) as executor:

        def thread() -> None:
            with pytest.raises(RuntimeError, match=r"was entered in another event loop"):
                executor.submit_nowait(anyio.sleep, 1)
            from_thread.run_sync(executor.submit_nowait, anyio.sleep, 1)

        await to_thread.run_sync(thread)
        assert executor.statistics().submitted == 1


async def test_two_loops_at_once_are_refused() -> None:
    """The second one is told to use another executor; the first goes on."""
    executor = TaskExecutor(2)

    async def elsewhere() -> None:
        with pytest.raises(
            RuntimeError,
            match=r"^<TaskExecutor max_workers=2> is in use by tasks of another running event",
        ):
            await executor.run(anyio.sleep, 1)

    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, anyio.sleep, 1)
        await settle()
        await to_thread.run_sync(anyio.run, elsewhere)
    assert anyio.current_time() == 1
    assert executor.statistics().in_flight == 0

    def use() -> None:
        anyio.run(executor.run, divmod, 7, 2)

    await to_thread.run_sync(use)  # it is not in use here now
