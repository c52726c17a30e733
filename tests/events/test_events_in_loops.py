"""One emitter, several event loops, one after another."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from mtaio._internal import clock
from mtaio.events import Event, EventEmitter
from mtaio.testing import run
from tests.backends import BACKENDS


@pytest.mark.parametrize("backend", BACKENDS)
def test_block_of_another_thread_is_left_alone(backend: str) -> None:
    """An emit runs its handlers in its own loop, also if another has entered the emitter."""
    emitter = EventEmitter()
    ready, done = threading.Event(), threading.Event()
    threads: list[int] = []

    async def handle(_: Event[Any]) -> None:
        await checkpoint()
        threads.append(threading.get_ident())

    emitter.on("a", handle)
    emitter.on("a", handle)

    async def stay() -> None:
        async with emitter:
            ready.set()
            await to_thread.run_sync(done.wait, 10)

    thread = threading.Thread(target=anyio.run, args=(stay,), kwargs={"backend": backend})
    thread.start()
    assert ready.wait(10)
    anyio.run(emitter.emit, "a", backend=backend)
    done.set()
    thread.join(10)
    assert threads == [threading.get_ident()] * 2


def test_time_is_that_of_the_running_loop() -> None:
    """Also under a loop whose clock is not the system's."""

    async def main() -> tuple[float, float]:
        emitter = EventEmitter()
        first = await emitter.emit("a")
        await anyio.sleep(100)
        second = await emitter.emit("a")
        async with emitter, emitter.stream("b") as events:
            emitter.emit_nowait("b")
            await anyio.sleep(10)
            third = await anext(events)
        return second.time - first.time, third.time - second.time

    before = clock.read
    try:
        trio = pytest.importorskip("trio")
        testing = pytest.importorskip("trio.testing")
        times = trio.run(main, clock=testing.MockClock(autojump_threshold=0))
    finally:
        clock.follow(before)
    assert times == (100, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_block_of_a_loop_that_is_over_is_forgotten(backend: str) -> None:
    """It was never left: emits go on without it, and what it had to deliver is dropped."""
    emitter = EventEmitter()
    seen: list[Any] = []
    stay: list[Any] = []

    async def handle(event: Event[Any]) -> None:
        await checkpoint()
        seen.append(event.data)

    emitter.on("a", handle)
    emitter.on("a", handle)

    @emitter.on("b")
    async def sleep(_: Event[Any]) -> None:
        await anyio.sleep(100)

    async def abandon() -> None:
        await emitter.__aenter__()
        emitter.emit_nowait("b")
        emitter.emit_nowait("b")
        for _ in range(5):
            await asyncio.sleep(0)  # the first is being delivered now
        stay.append(asyncio.current_task())
        await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    task = loop.create_task(abandon())
    while not stay:
        loop.run_until_complete(asyncio.sleep(0))
    for each in asyncio.all_tasks(loop):
        each._log_destroy_pending = False  # type: ignore[attr-defined] # abandoned on purpose
    loop.close()

    async def main() -> None:
        await emitter.emit("a", 1)
        with pytest.raises(RuntimeError, match=r"is not entered, and emit_nowait\(\) works"):
            emitter.emit_nowait("a", 2)
        async with emitter:
            emitter.emit_nowait("a", 3)

    run(main, backend=backend)
    assert seen == [1, 1, 3, 3]
    assert emitter.statistics().dropped == 1  # the other one was being delivered
    del task


def test_stream_that_is_closed_after_its_loop() -> None:
    """Leaving it then is no error, though an emit was waiting for space in that loop."""
    emitter = EventEmitter()

    async def consume() -> None:
        async with emitter.stream("a", max_pending=1, overflow="block"):
            await asyncio.sleep(9)

    async def emit() -> None:
        for number in range(2):
            await emitter.emit("a", number)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # tasks destroyed, it would say
    consumer = consume()
    tasks = [loop.create_task(consumer), loop.create_task(emit())]
    loop.run_until_complete(asyncio.sleep(0.01))
    assert emitter.statistics().waiting == 1
    loop.close()
    consumer.close()
    assert emitter.statistics().streams == 0
    tasks.clear()
