"""The rows of the guide's dictionary for `streamable`: each does what its documentation shows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio import RateLimiter, TaskExecutor
from mtaio.core import merge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

executor = TaskExecutor()


async def inverse(n: int) -> float:
    """Return 1 / ``n``, rounded."""
    await checkpoint()
    return round(1 / n, 2)


async def itself(x: Any) -> Any:
    """Return ``x``."""
    await checkpoint()
    return x


async def numbers() -> AsyncIterator[int]:
    """Yield numbers, one each half a second, as ``throttle`` does of two a second."""
    for x in range(10):
        yield x
        await anyio.sleep(0.5)


async def mapped() -> None:
    """``.map(fn, concurrency=2)``, in the order of the items, and stages of it."""
    seen = executor.stream(itself, range(10), limit=2, ordered=True)
    assert await executor.map(str, seen) == [*"0123456789"]


async def grouped() -> None:
    """``.group(5)``, and ``within``."""
    assert await executor.map(itself, range(10), batch=5) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    got = await executor.map(itself, numbers(), batch=100, within=0.9, limit=1)
    assert got == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


async def flattened() -> None:
    """``.flatten()``, one after another and several at a time."""
    chars = executor.stream(itself, [["h", "e", "l"], ["l", "o", "!"]], flatten=True, ordered=True)
    assert await executor.map(itself, chars) == [*"hello!"]
    assert await executor.map(itself, merge([*"hel"], [*"lo"], [*"!"])) == [*"hl!eol"]


async def caught() -> None:
    """``.catch(ZeroDivisionError)``, with ``replace`` and ``do``."""
    seen: list[tuple[Any, Exception]] = []
    rest = await collect(errors=lambda n, error: seen.append((n, error)))
    assert rest[:3] == [1.0, 0.5, 0.33]
    assert [(n, type(error)) for n, error in seen] == [(0, ZeroDivisionError)]
    with_errors = await executor.map(inverse, range(3), errors="return")
    assert [float("inf") if isinstance(x, Exception) else x for x in with_errors] == [
        *(float("inf"), 1.0, 0.5)
    ]


async def collect(**options: Any) -> list[Any]:
    """Return the results of a stream."""
    async with executor.stream(inverse, range(10), ordered=True, **options) as results:
        return [result async for result in results]


async def throttled() -> None:
    """``.throttle(3, per=timedelta(seconds=1))``: ten take three seconds."""
    began = anyio.current_time()
    await executor.for_each(itself, range(10), rate=3)
    assert anyio.current_time() - began == pytest.approx(3)
    began = anyio.current_time()
    await executor.for_each(itself, range(10), rate=RateLimiter(rate=3, burst=3))
    assert anyio.current_time() - began == pytest.approx(7 / 3)


async def observed() -> None:
    """``.observe()``: how many, and of how many."""
    seen: list[tuple[int, int | None]] = []
    await executor.for_each(itself, range(3), on_progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]


async def done_for_its_effect() -> None:
    """``.do(effect, concurrency=2)`` at the end of a pipeline."""
    state: list[int] = []
    numbers: list[int] = [*range(10)]
    await executor.for_each(state.append, numbers, limit=1)
    assert state == [*range(10)]


async def chosen() -> None:
    """``.filter(keep)``, ``.skip(5)`` and ``.take(5)`` are Python's, of the source."""
    assert await executor.map(itself, (n for n in range(10) if n % 2 == 0)) == [0, 2, 4, 6, 8]
    assert await executor.map(itself, itertools.islice(range(10), 5, None)) == [5, 6, 7, 8, 9]
    source = iter(range(10))
    assert await executor.map(itself, itertools.islice(source, 5)) == [0, 1, 2, 3, 4]
    assert next(source) == 5


async def taken_of_results() -> None:
    """``.take(5)`` of results is a ``break``."""
    got: list[object] = []
    async with executor.stream(itself, itertools.count(), ordered=True) as results:
        async for result in results:
            got.append(result)
            if len(got) == 5:
                break
    assert got == [0, 1, 2, 3, 4]


async def buffered() -> None:
    """``.buffer(5)`` reads ahead of a consumer."""
    pulled: list[int] = []

    async def pull() -> AsyncIterator[int]:
        for x in range(10):
            pulled.append(x)
            yield x

    async with executor.stream(itself, pull(), limit=1, max_pending=0, read_ahead=5) as results:
        assert await anext(results) == 0
        await anyio.sleep(0.001)
        assert pulled == [*range(7)]  # one is pending, and five are read


async def added() -> None:
    """``stream(a) + b``: one after the other."""
    assert await executor.map(itself, itertools.chain(range(2), range(5, 7))) == [0, 1, 5, 6]


@pytest.mark.parametrize(
    "row",
    [
        mapped,
        grouped,
        flattened,
        caught,
        throttled,
        observed,
        done_for_its_effect,
        chosen,
        taken_of_results,
        buffered,
        added,
    ],
)
async def test_row(row: Callable[[], Awaitable[None]]) -> None:
    """What stands in the right column does what the left one does."""
    await row()
