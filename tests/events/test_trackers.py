"""What others' issue trackers complain of, each as a test: solved on day one."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.events import Event, EventEmitter
from mtaio.testing import run, settle
from tests.backends import BACKENDS
from tests.events.inside import inside_and_outside

if TYPE_CHECKING:
    from collections.abc import Callable


@inside_and_outside
async def test_handlers_can_be_awaited(emitter: EventEmitter) -> None:
    """pyee#63: after the emit, every handler has ended."""
    ended: list[int] = []

    @emitter.on("a")
    @emitter.on("a")
    async def handle(_: Event[int]) -> None:
        await anyio.sleep(1)
        ended.append(1)

    await emitter.emit("a")
    assert ended == [1, 1]


@inside_and_outside
async def test_one_exception_does_not_stop_the_rest(emitter: EventEmitter) -> None:
    """blinker#10: those behind a failing handler are called."""
    called: list[str] = []

    @emitter.on("a")
    def fail(_: Event[int]) -> None:
        raise ValueError("bad")

    emitter.on("a", lambda _: called.append("behind"))
    with pytest.raises(ExceptionGroup):
        await emitter.emit("a")
    assert called == ["behind"]


@inside_and_outside
async def test_first_error_does_not_hide_the_others(emitter: EventEmitter) -> None:
    """emittery#51: all errors are raised."""
    for number in range(3):

        @emitter.on("a")
        async def fail(_: Event[int], number: int = number) -> None:
            await anyio.sleep(number)
            raise ValueError(number)

    with pytest.raises(ExceptionGroup) as caught:
        await emitter.emit("a")
    assert [str(error) for error in caught.value.exceptions] == ["0", "1", "2"]


@inside_and_outside
async def test_error_of_an_async_handler_does_not_escape(emitter: EventEmitter) -> None:
    """node#27867: it comes to whoever emitted, and to nobody else."""

    @emitter.on("a")
    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        await anyio.sleep(1)
        raise ValueError("bad")

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 5)  # would be cancelled, if the error came here
        with pytest.raises(ExceptionGroup):
            await emitter.emit("a")
        await anyio.sleep(2)
    assert anyio.current_time() == 5


@inside_and_outside
async def test_cancellation_is_not_reported_as_an_error(emitter: EventEmitter) -> None:
    """pyee#64: a cancelled handler has not failed."""
    errors: list[Exception] = []
    reporting = EventEmitter(on_error=lambda error, *_: errors.append(error))
    for each in (emitter, reporting):
        for _ in range(2):
            each.on("a", sleeper)
        with anyio.move_on_after(1) as scope:
            await each.emit("a")
        assert scope.cancelled_caught
        assert each.statistics().failed == 0
    assert errors == []


async def sleeper(_: Event[Any]) -> None:
    """Sleep for long."""
    await anyio.sleep(100)


@inside_and_outside
async def test_once_and_removal_do_not_race(emitter: EventEmitter) -> None:
    """pyee#76: removing a once handler while it is being called, by itself or another, is fine."""
    called: list[str] = []

    @emitter.once("a")
    async def once(_: Event[int]) -> None:
        assert not emitter.off("a", once)
        await anyio.sleep(1)
        called.append("once")

    @emitter.on("a")
    def remover(_: Event[int]) -> None:
        assert not emitter.off("a", once)
        assert emitter.off("a", other)

    @emitter.once("a")
    def other(_: Event[int]) -> None:
        called.append("other")

    async with anyio.create_task_group() as group:
        group.start_soon(emitter.emit, "a")
        await settle()
        assert not emitter.off("a", once)
    assert emitter.listeners("a") == (remover,)
    assert called == ["once"]


async def test_events_are_not_lost_between_awaits() -> None:
    """node#32431: events that come while the consumer is busy with the one before are kept."""
    emitter = EventEmitter()
    seen: list[int] = []

    async def produce() -> None:
        for number in range(3):
            await emitter.emit("a", number)  # all at once

    async with emitter.stream("a") as events, anyio.create_task_group() as group:
        group.start_soon(produce)
        async for event in events:
            await anyio.sleep(1)
            seen.append(event.data)
            if event.data == 2:
                break
    assert seen == [0, 1, 2]


async def test_buffers_are_bounded() -> None:
    """emittery#40, node#52078: a consumer that does not come keeps no more than its buffer."""
    emitter = EventEmitter()

    class Payload:
        """Can be referred to weakly."""

    alive: weakref.WeakSet[Payload] = weakref.WeakSet()
    async with (
        emitter.stream("a", max_buffer=5, overflow="drop_oldest") as oldest,
        emitter.stream("a", max_buffer=5, overflow="drop_newest") as newest,
    ):
        for _ in range(1000):
            payload = Payload()
            alive.add(payload)
            await emitter.emit("a", payload)
        del payload
        gc.collect()
        assert len(alive) == 10
        assert oldest.dropped == newest.dropped == 995


async def test_receivers_do_not_vanish() -> None:
    """pelican#1386: a receiver that only the emitter knows stays, unless it was to be weak."""
    emitter = EventEmitter()
    called: list[str] = []

    def connect() -> None:
        def receiver(_: Event[int]) -> None:
            called.append("receiver")

        emitter.on("a", receiver)
        emitter.on("a", lambda _: called.append("lambda"))

    connect()
    gc.collect()
    await emitter.emit("a")
    assert called == ["receiver", "lambda"]


# ---- pyee's two endless loops --------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_failing_error_handler_ends_at_once(backend: str, asynchronous: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """
    An error handler that fails is called once, and its emit ends with an ExceptionGroup.

    Elsewhere its error is emitted as "error" again, which calls it again: a sync one under trio
    never comes back, an async one under asyncio is called some 80,000 times a second.
    """
    calls = 0

    def fail(event: Event[Exception]) -> None:
        nonlocal calls
        calls += 1
        assert calls < 10, "it is called without end"
        msg = f"cannot handle {event.data!r}"
        raise RuntimeError(msg)

    async def fail_async(event: Event[Exception]) -> None:
        await anyio.sleep(0.001)
        fail(event)

    async def main() -> None:
        emitter = EventEmitter()
        handler: Callable[[Event[Exception]], object] = fail_async if asynchronous else fail
        emitter.on("error", handler)

        async def report(error: Exception, event: Event[Any], _: object) -> None:
            if event.name != "error":  # as one who comes from elsewhere would write it
                await emitter.emit("error", error)
            else:
                raise error

        reporting = EventEmitter(on_error=report)
        reporting.on("error", handler)

        @reporting.on("work")
        async def work(_: Event[int]) -> None:
            raise ValueError("bad")

        with pytest.raises(ExceptionGroup):
            await emitter.emit("error", ValueError("bad"))
        assert calls == 1
        with pytest.raises(ExceptionGroup):
            await reporting.emit("work")
        assert calls == 2
        with pytest.raises(ExceptionGroup):
            await reporting.emit("error", ValueError("bad"))
        assert calls == 3
        await anyio.sleep(10)
        assert calls == 3

    run(main, backend=backend)


def test_nothing_is_left_in_the_loop() -> None:
    """No emit leaves a task behind that nobody waits for."""

    async def main() -> None:
        emitter = EventEmitter()
        for _ in range(3):
            emitter.on("a", sleeper)
        before = asyncio.all_tasks()
        with anyio.move_on_after(1):
            await emitter.emit("a")
        assert asyncio.all_tasks() == before
        async with emitter:
            with anyio.move_on_after(1):
                await emitter.emit("a")
            await settle()
            assert len(asyncio.all_tasks()) == len(before) + 1  # the block's own
        assert asyncio.all_tasks() == before

    run(main, backend="asyncio")
