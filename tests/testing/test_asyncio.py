"""What is asyncio's alone: its modes, its last phases, its executors, and the hooks into it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread

from mtaio._internal.clock import now
from mtaio.testing import Deadlock, Schedule, current_simulation, run, virtual_backend

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

FACTORIES: list[Any] = [None]
if sys.version_info >= (3, 12):
    FACTORIES.append(asyncio.eager_task_factory)


def test_equal_deadlines_fire_in_order_on_asyncio() -> None:
    """Asyncio's heap of timers is not stable, but timers due at one moment fire in order."""
    order: list[int] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        for n in range(50):
            loop.call_at(1.0, order.append, n)
            loop.call_later(0.5 + n % 3, order.append, -1)
        await asyncio.sleep(1)

    run(scenario, backend="asyncio")
    assert [n for n in order if n >= 0] == list(range(50))


@pytest.mark.parametrize(
    "factory",
    FACTORIES,
    ids=lambda factory: "eager" if factory else "lazy",
)
@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_asyncio_modes(factory: Any, *, debug: bool) -> None:
    """Debug mode and eager tasks change nothing, down to the last phases of the loop."""
    log: list[tuple[str, float]] = []

    async def work(name: str, delay: float) -> None:
        try:
            await anyio.sleep(delay)
            log.append((name, now()))
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            log.append((f"{name} cleaned up", now()))

    async def scenario() -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        loop.set_debug(debug)
        loop.set_task_factory(factory)
        await loop.run_in_executor(None, int)  # so that the executor must be shut down
        async with asyncio.TaskGroup() as group:
            group.create_task(work("short", 1))
            group.create_task(work("long", 2))
        return loop.create_task(work("left over", 10))

    run(scenario, backend="asyncio")
    assert log == [
        ("short", 1.0),
        ("short cleaned up", 1.5),
        ("long", 2.0),
        ("long cleaned up", 2.5),
        ("left over cleaned up", 3.0),
    ]


def test_asyncio_finishes_async_generators() -> None:
    """A generator that was left half used is finished under virtual time, after the main task."""
    finished: list[float] = []

    async def numbers() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(4)
            finished.append(now())

    async def scenario() -> AsyncGenerator[int]:
        generator = numbers()
        await anext(generator)
        return generator

    run(scenario, backend="asyncio")
    assert finished == [4.0]


def test_asyncio_debug_mode_checks_timers() -> None:
    """The base class's checks of debug mode are kept."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(enabled=True)
        with pytest.raises(RuntimeError, match=r"^Non-thread-safe operation"):
            await anyio.to_thread.run_sync(lambda: loop.call_later(1, int))

    run(scenario, backend="asyncio")


def test_last_phases_of_asyncio_can_deadlock() -> None:
    """A task left over that refuses to end is told when the loop shuts down."""

    async def refuse() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    async def scenario() -> asyncio.Task[None]:
        return asyncio.create_task(refuse(), name="left over")

    with pytest.raises(Deadlock) as caught:
        run(scenario, backend="asyncio")
    failure = caught.value
    assert [stack.name for stack in failure.stacks if stack.frames[0].count("refuse")] == [
        "left over"
    ]


def test_executors_of_asyncio_freeze_time() -> None:
    """``run_in_executor`` freezes the clock like any other thread."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, time.sleep, 0.05)
        future.add_done_callback(lambda _: ended.append(now()))
        await asyncio.sleep(10)

    ended: list[float] = []
    run(scenario, backend="asyncio")
    assert ended == [0.0]


def test_asyncio_transports_of_its_own() -> None:
    """What asyncio starts without anyio is real as well."""

    async def scenario() -> tuple[bytes, int]:
        process = await asyncio.create_subprocess_shell("exit 5")
        reader, writer = socket.socketpair()
        reader.setblocking(False)  # noqa: FBT003 - it takes it so
        writer.send(b"x")
        data = await asyncio.get_running_loop().sock_recv(reader, 1)
        reader.close()
        writer.close()
        return data, await process.wait()

    assert run(scenario, backend="asyncio") == (b"x", 5)


def test_ctrl_c_wins_over_a_deadlock_in_its_cleanup() -> None:
    """On asyncio Ctrl-C is a cancellation from outside, and stays one."""

    async def scenario() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await anyio.sleep(1)
        finally:
            await anyio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(scenario, backend="asyncio")


def test_loop_factory_of_a_second_simulation() -> None:
    """While one simulation runs, no loop can be made for another one."""
    _, options = virtual_backend("asyncio")

    async def scenario() -> None:
        with pytest.raises(RuntimeError, match=r"^a simulation is running in this process already"):
            await to_thread.run_sync(options["loop_factory"])

    run(scenario)


def test_asyncio_scheduled_and_resolution() -> None:
    """Asyncio keeps its timers in ``_scheduled``, a heap, and fires up to ``_clock_resolution``."""
    loop: Any = asyncio.SelectorEventLoop()
    try:
        assert loop._scheduled == []
        later = loop.call_later(2, int)
        sooner = loop.call_later(1, int)
        assert loop._scheduled[0] is sooner
        assert later in loop._scheduled
        assert sooner._scheduled is True
        sooner.cancel()
        assert loop._timer_cancelled_count == 1
        assert 0 < loop._clock_resolution < 1
    finally:
        loop.close()


async def test_asyncio_own_file() -> None:
    """An event loop on which nothing happens has one file of its own in its selector."""
    loop: Any = asyncio.SelectorEventLoop()
    try:
        assert len(loop._selector.get_map()) == 1
    finally:
        loop.close()


def test_asyncio_pipe_to_itself() -> None:
    """Asyncio makes the pipe that wakes its loop by these methods, and knows how to do without."""
    for name in ("_make_self_pipe", "_close_self_pipe", "_write_to_self"):
        assert callable(getattr(asyncio.SelectorEventLoop, name))
    loop: Any = asyncio.SelectorEventLoop()
    try:
        ends = loop._csock, loop._ssock
        assert all(isinstance(end, socket.socket) for end in ends)
        loop._csock = None
        loop._write_to_self()
        loop._csock = ends[0]
    finally:
        loop.close()


def test_run_without_anything_real_opens_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that never sleeps has no pipe to be woken by, which is what makes runs cheap."""
    made: list[object] = []

    def socketpair() -> Any:
        made.append(1)
        return pair()

    pair = socket.socketpair
    run(anyio.sleep, 1, backend="asyncio", schedule=Schedule())  # the first looks for the hooks
    monkeypatch.setattr(socket, "socketpair", socketpair)
    run(anyio.sleep, 1, backend="asyncio", schedule=Schedule())
    assert made == []
    run(to_thread.run_sync, time.sleep, 0.01, backend="asyncio")
    assert made == [1]


def test_thread_schedules_a_callback_while_the_loop_is_busy() -> None:
    """A callback from a thread runs soon, also in a loop that has no pipe."""

    async def scenario() -> None:
        called: list[int] = []
        loop = asyncio.get_running_loop()
        with current_simulation().hold():
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.append, 1))
            thread.start()
            while not called:
                await anyio.lowlevel.checkpoint()
        thread.join()

    run(scenario, backend="asyncio")


def test_callback_of_a_thread_that_met_the_queue_being_replaced() -> None:
    """What a thread appends to the queue that it had got hold of, before a watch, is not lost."""

    async def scenario() -> list[str]:
        loop: Any = asyncio.get_running_loop()
        held = loop._ready  # as call_soon_threadsafe does in another thread
        current_simulation().always(lambda: True)
        assert loop._ready is not held
        ran: list[str] = []
        held.append(asyncio.Handle(ran.append, ("late",), loop))
        await asyncio.sleep(1)
        return ran

    assert run(scenario, backend="asyncio") == ["late"]


def test_loop_that_is_closed_twice() -> None:
    """A loop may be closed again, and takes no timers then, as on asyncio's own."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def scenario() -> None:
        loops.append(asyncio.get_running_loop())

    run(scenario, backend="asyncio")
    loops[0].close()
    assert loops[0].is_closed()
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        loops[0].call_at(1, int)
