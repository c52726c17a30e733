"""The items of any async iterable, each in its time."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio._internal.deadlines import Alarms
from mtaio.core import TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resources import TimeoutManager
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

closed: list[float] = []


async def ticks(*seconds: float) -> AsyncGenerator[float]:
    """Yield each number of seconds, after that time."""
    try:
        for each in seconds:
            await anyio.sleep(each)
            yield each
    finally:
        closed.append(anyio.current_time())


@pytest.mark.parametrize(
    ("seconds", "message", "moment"),
    [
        ((2,), "api: the first item did not arrive within 1 s", 1),
        ((0.5, 0.7), "api: the next item did not arrive within 0.6 s", 2.1),
        ((0.5, 0.1, 0.1, 0.1, 0.5), "api: the items of this block did not arrive within 5 s", 5),
    ],
)
async def test_limits(seconds: tuple[float, ...], message: str, moment: float) -> None:
    """To the first item, between items without the consumer's time, and the whole."""
    timeouts = TimeoutManager(5, name="api")
    closed.clear()

    async def consume() -> None:
        async with timeouts.each(ticks(*seconds), first=1, between=0.6) as items:
            async for _ in items:
                await anyio.sleep(1)

    with pytest.raises(MTAIOTimeoutError) as caught:
        await consume()
    assert str(caught.value) == message
    assert caught.value.name == "api"
    assert anyio.current_time() == pytest.approx(moment)
    assert closed == [anyio.current_time()]
    now = timeouts.statistics()
    assert (now.entered, now.timed_out) == (1, 1)


async def test_without_limits_of_their_own() -> None:
    """Each of the three may be left out, and the time of the whole is the default's."""
    async with TimeoutManager(None).each(ticks(9, 9)) as items:
        assert [item async for item in items] == [9, 9]
    async with TimeoutManager(1).each(ticks(9, 9), timeout=None, between=10) as items:
        assert [item async for item in items] == [9, 9]
    with pytest.raises(MTAIOTimeoutError):
        async with TimeoutManager(1).each(ticks(9)) as items:
            await anext(items)


async def test_block_is_entered_once() -> None:
    """And iterated inside; a generator is closed, also if it was not begun."""
    closed.clear()
    timeouts = TimeoutManager(9)
    block = timeouts.each(ticks(1, 1))
    assert repr(block) == "<LimitedItems of ticks, new>"
    with pytest.raises(RuntimeError, match=r"was not entered. Write: async with timeouts\.each"):
        await anext(block)
    async with block as items:
        assert repr(block) == "<LimitedItems of ticks, entered>"
        await anext(items)
    assert len(closed) == 1
    with pytest.raises(RuntimeError, match="was left"):
        await anext(block)
    with pytest.raises(RuntimeError, match=r"was entered before.*Call each\(\) again"):
        await block.__aenter__()
    await block.__aexit__(None, None, None)


async def test_bad_input() -> None:
    """It is refused with the value, the reason and the way out."""
    timeouts = TimeoutManager(9)
    source: Any = [1, 2]
    with pytest.raises(TypeError, match=r"source=\[1, 2\] cannot be iterated with 'async for'"):
        timeouts.each(source)
    with pytest.raises(ValueError, match="between=-1"):
        timeouts.each(ticks(), between=-1)


async def test_no_item_is_lost() -> None:
    """Results of an executor that come too late are there for the next who asks."""

    async def work(number: int) -> int:
        await anyio.sleep(0.5 if number % 5 else 2.2)
        return number

    timeouts = TimeoutManager(None)
    got: list[int] = []
    late = 0
    async with (
        TaskExecutor(3).stream(work, range(20), ordered=True) as results,
        timeouts.each(results, first=1, between=1) as items,
    ):
        while len(got) < 20:
            try:
                got.append(await anext(items))
            except MTAIOTimeoutError:
                late += 1
    assert got == list(range(20))
    assert late > 3


async def test_cancelled_wait_ends_a_generator() -> None:
    """And the next item says so, instead of looking like the end."""
    async with TimeoutManager(None).each(ticks(1, 1)) as items:
        with anyio.move_on_after(0.5):
            await anext(items)
        with pytest.raises(RuntimeError, match=r"cancelled while it waited.*each\(between"):
            await anext(items)


async def test_open_scope_is_explained() -> None:
    """A generator that yields in a timeout block cannot be limited; it is closed."""

    async def source() -> AsyncIterator[int]:
        with anyio.fail_after(9):
            yield 1

    with pytest.raises(RuntimeError, match="holds a cancel scope or a task group open"):
        async with TimeoutManager(None).each(source()) as items:
            await anext(items)


def test_yield_in_a_timeout_block_is_explained(backend: str) -> None:
    """On leaving it in the wrong way."""
    errors: list[str] = []

    async def guarded() -> AsyncIterator[float]:
        try:
            with TimeoutManager(0.5)() as scope:
                for _ in range(3):
                    scope.reschedule(0.5)
                    yield 0.1
        except RuntimeError as error:
            errors.append(str(error))

    async def consume() -> None:
        generator: Any = guarded()
        await anext(generator)
        async with anyio.create_task_group() as group:
            group.start_soon(generator.aclose)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(consume)

    with suppress(RuntimeError, BaseExceptionGroup):
        run(main, backend=backend)
    gc.collect()
    assert len(errors) == 1
    assert "with timeouts.each(source, between=...) as items:" in errors[0]


def test_error_of_the_body_stays() -> None:
    """A RuntimeError that the body raises is not taken for that of a scope."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"^mine$"), TimeoutManager(1)():
            raise RuntimeError("mine")

    run(main)


def test_left_when_its_loop_is_over(backend: str) -> None:
    """A block whose coroutine is collected after its loop does not wait."""
    kept: list[Any] = []

    class Pause:
        def __await__(self) -> Any:
            yield

    async def body() -> None:
        async with TimeoutManager(None).each(ticks(1)):
            await Pause()

    async def main() -> None:
        kept.append(body())
        kept[0].send(None)

    run(main, backend=backend)
    kept.pop().close()


async def test_alarms_are_bounded() -> None:
    """Few numbers of seconds are remembered, of one event loop."""
    alarms = Alarms()
    first = alarms.of(1)
    assert alarms.of(1) is first
    for seconds in range(2, 9):
        alarms.of(seconds)
    assert alarms.of(1) is first
    alarms.of(9)
    assert alarms.of(1) is not first
