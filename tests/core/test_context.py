"""A context for each item: context variables of one never show in another."""

from __future__ import annotations

import asyncio
import itertools
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio.core import TaskExecutor
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VAR: ContextVar[str] = ContextVar("VAR", default="unset")


async def remember(x: int) -> tuple[str, str]:
    """Set the variable, and tell what it was before and after a wait."""
    before = VAR.get()
    VAR.set(f"item {x}")
    await anyio.sleep(1)
    return before, VAR.get()


@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("limit", [1, 2, 4])
async def test_items_do_not_see_each_other(limit: int, timeout: float | None) -> None:
    """Each item starts from the caller's context, also after others in the same worker."""
    VAR.set("caller")
    results = await TaskExecutor(limit).map(remember, range(4), timeout=timeout)
    assert results == [("caller", f"item {x}") for x in range(4)]
    assert VAR.get() == "caller"


async def test_items_that_never_suspend_do_not_see_each_other() -> None:
    """The same holds without any wait."""

    async def work(x: int) -> str:
        before = VAR.get()
        VAR.set(str(x))
        return before

    assert await TaskExecutor(2).map(work, range(3)) == ["unset"] * 3


async def test_child_tasks_inherit_the_item_s_context() -> None:
    """Tasks that an item starts get its variables."""
    seen = []

    async def child(x: int) -> None:
        seen.append((x, VAR.get()))

    async def work(x: int) -> None:
        VAR.set(f"item {x}")
        await anyio.sleep(1)
        async with anyio.create_task_group() as group:
            group.start_soon(child, x)

    await TaskExecutor(2).map(work, range(4))
    assert sorted(seen) == [(x, f"item {x}") for x in range(4)]


def test_child_tasks_of_asyncio_inherit_the_item_s_context() -> None:
    """So do tasks and callbacks that an item makes through asyncio itself."""
    seen = []

    async def child() -> str:
        return VAR.get()

    async def work(x: int) -> str:
        VAR.set(f"item {x}")
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_soon(lambda: seen.append(VAR.get()))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(child())
        return task.result()

    async def main() -> None:
        assert await TaskExecutor(1).map(work, range(2)) == ["item 0", "item 1"]
        assert seen == ["item 0", "item 1"]

    run(main, backend="asyncio")


async def test_threads_see_the_item_s_context() -> None:
    """A plain function sees the caller's variables, and keeps its own to itself."""
    VAR.set("caller")

    def work(x: int) -> str:
        before = VAR.get()
        VAR.set(f"item {x}")
        return before

    assert await TaskExecutor(1).map(work, range(3)) == ["caller"] * 3
    assert VAR.get() == "caller"


async def test_tokens_are_reset_where_they_were_set() -> None:
    """ContextVar.reset works across the waits of an item, which always runs in its one context."""

    async def work(x: int) -> str:
        token = VAR.set(f"item {x}")
        for _ in range(3):
            await anyio.sleep(1)
        VAR.reset(token)
        return VAR.get()

    assert await TaskExecutor(2).map(work, range(4)) == ["unset"] * 4


async def test_errors_and_cancellation_reach_the_item_in_its_context() -> None:
    """Clean-up of an item sees the item's variables."""
    seen = []

    async def work(x: int) -> None:
        VAR.set(f"item {x}")
        try:
            await anyio.sleep(x)
            raise ValueError(x)
        finally:
            seen.append((x, VAR.get()))

    with pytest.raises(ValueError, match=r"^1\b"):
        await TaskExecutor(2).map(work, [1, 5])
    assert sorted(seen) == [(1, "item 1"), (5, "item 5")]


async def test_async_source_has_a_context_of_its_own() -> None:
    """What an async generator sets, its items do not see, nor does it see theirs."""
    seen = []

    async def source() -> AsyncIterator[int]:
        for x in range(3):
            seen.append(VAR.get())
            VAR.set(f"source {x}")
            yield x

    results = await TaskExecutor(1).map(remember, source())
    assert results == [("unset", f"item {x}") for x in range(3)]
    assert seen == ["unset", "source 0", "source 1"]


async def test_stream_takes_the_context_of_the_block() -> None:
    """Items of a stream see the variables as they were when the block was entered."""
    VAR.set("made")
    stream = TaskExecutor(2).stream(remember, [1])
    VAR.set("entered")
    async with stream as results:
        VAR.set("inside")
        assert [result async for result in results] == [("entered", "item 1")]


async def test_item_runs_in_one_task_with_its_neighbours() -> None:
    """Isolation costs no task: a worker's items share one, each in a context of its own."""
    tasks = set()
    contexts = []

    async def work(_: int) -> None:
        tasks.add(anyio.get_current_task().id)
        contexts.append(copy_context())
        await anyio.sleep(1)

    await TaskExecutor(2).map(work, range(6))
    assert len(tasks) == 2
    assert all(a is not b for a, b in itertools.pairwise(contexts))


async def test_race_and_gather_isolate_their_calls() -> None:
    """Each call of gather has its own context too."""
    assert await TaskExecutor(1).gather(remember(1), remember(2)) == (
        ("unset", "item 1"),
        ("unset", "item 2"),
    )
