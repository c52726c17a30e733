"""TaskExecutor.for_each: map for the effect, in constant memory."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from mtaio.core import TaskExecutor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_returns_nothing() -> None:
    """The results of the function are dropped."""

    async def work(x: int) -> int:
        await anyio.sleep(1)
        done.append(x)
        return x

    done: list[int] = []
    outcome: object = await TaskExecutor(2).for_each(work, range(4))  # type: ignore[func-returns-value] # looked at
    assert outcome is None
    assert sorted(done) == [0, 1, 2, 3]
    assert anyio.current_time() == 2


async def test_takes_the_options_of_map() -> None:
    """limit, timeout, rate, retry, errors and on_progress mean what they mean to map."""
    starts: list[float] = []
    reports: list[int] = []

    async def work(x: int) -> None:
        starts.append(anyio.current_time())
        await anyio.sleep(5)
        raise AssertionError(x)

    with pytest.raises(ExceptionGroup, match=r"^2 errors in one call") as info:
        await TaskExecutor().for_each(
            work,
            [1, 2],
            limit=1,
            timeout=2,
            rate=10,
            retry=1,
            errors="collect",
            on_progress=lambda done, _: reports.append(done),
        )
    assert starts == [0, 2]
    assert reports == [1, 2]
    assert all(isinstance(error, TimeoutError) for error in info.value.exceptions)


async def test_plain_function_runs_for_its_effect() -> None:
    """list.append and its kind need no wrapper."""
    done: list[int] = []
    await TaskExecutor(2).for_each(done.append, range(10))
    assert sorted(done) == list(range(10))


class Result:
    """Can be watched by a weak reference."""


async def test_results_are_dropped_at_once() -> None:
    """A worker keeps the result of an item no longer than the item itself."""
    results: list[weakref.ref[Result]] = []

    async def work(x: int) -> Result:
        await anyio.sleep(1)
        assert [ref() for ref in results] == [None] * x
        result = Result()
        results.append(weakref.ref(result))
        return result

    await TaskExecutor(1).for_each(work, range(4))
    assert len(results) == 4


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_memory_stays_constant(kind: str) -> None:
    """However long the source is, no more objects are alive than running items need."""

    async def work(x: int) -> int:
        if x % 100 == 0:
            await anyio.lowlevel.checkpoint()
        if x % 1_000 == 0:
            alive.append(len(gc.get_objects()))
        return x

    async def numbers() -> AsyncIterator[int]:
        for i in range(total):
            yield i

    gc.collect()  # what other tests left behind is not the matter here
    alive: list[int] = []
    total = 30_000 if kind == "sync" else 10_000
    await TaskExecutor(10).for_each(work, range(total) if kind == "sync" else numbers())
    assert max(alive[1:]) - min(alive[1:]) < 500
