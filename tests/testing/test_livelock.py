"""Livelocks: tasks that run for ever and get nowhere."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.testing import (
    Livelock,
    Schedule,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SCHEDULES = [None, Schedule(), Schedule(seed=1), Schedule(seed=1, fair=True)]


async def spin() -> None:
    """Let others run, for ever."""
    while True:
        await anyio.lowlevel.checkpoint()


async def spin_behind_a_shield() -> None:
    """Do the same where no cancellation gets through."""
    with anyio.CancelScope(shield=True):
        await spin()


async def spin_whatever_happens() -> None:
    """Do the same, and swallow whatever is thrown in."""
    while True:
        with suppress(Exception, anyio.get_cancelled_exc_class()):
            await anyio.lowlevel.checkpoint()


async def ping_pong() -> None:
    """Have two tasks wake each other for ever."""
    send, receive = anyio.create_memory_object_stream[int](0)
    back, forth = anyio.create_memory_object_stream[int](0)

    async def echo() -> None:
        async for n in receive:
            await back.send(n)

    async with anyio.create_task_group() as group, send, receive, back, forth:
        group.start_soon(echo)
        while True:
            await send.send(1)
            await forth.receive()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("scenario", [spin, ping_pong])
def test_turning_on_the_spot(
    backend: str, scenario: Callable[[], Awaitable[None]], schedule: Schedule | None
) -> None:
    """A run in which tasks are busy without end fails, and says where they are."""

    async def main() -> None:
        await anyio.sleep(2)
        await scenario()

    with pytest.raises(
        Livelock,
        match=r"^the run makes no progress at t=2\.0: tasks have kept the event loop turning 300 "
        r"times without waiting for anything\. Let them wait for an event or a moment, or raise "
        r"max_turns=300\.\n",
    ) as caught:
        run(main, backend=backend, schedule=schedule, max_turns=300)
    assert scenario.__name__ in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("schedule", SCHEDULES[:2], ids=repr)
def test_spinning_behind_a_shield(backend: str, schedule: Schedule | None) -> None:
    """A task that spins behind a shield is ended by force, and leaves nothing behind."""
    with pytest.raises(Livelock, match=r"^the run still makes no progress at t=0\.0: ") as caught:
        run(spin_behind_a_shield, backend=backend, schedule=schedule, max_turns=100)
    assert isinstance(caught.value.__cause__, Livelock)
    assert "in spin_behind_a_shield" in str(caught.value.__cause__)
    gc.collect()


@pytest.mark.filterwarnings(
    # A coroutine that never lets go cannot be closed either, and Python says so.
    "ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"
)
def test_spinning_whatever_happens(backend: str) -> None:
    """Even a task that swallows whatever is thrown into it does not spin for ever."""
    with pytest.raises(Livelock, match=r"^the run still makes no progress at t=0\.0: "):
        run(spin_whatever_happens, backend=backend, max_turns=100)
    gc.collect()
    assert run(anyio.sleep, 1, backend=backend) is None


def test_many_turns_are_no_livelock(backend: str) -> None:
    """Turns count only as long as no time passes and nothing real comes."""

    async def scenario() -> float:
        for _ in range(20):
            for _ in range(80):
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(1)
        return anyio.current_time()

    assert run(scenario, backend=backend, max_turns=100) == 20.0


def test_looking_after_a_thread_is_no_livelock(backend: str) -> None:
    """Asking again and again whether a thread has ended is not a livelock, also afterwards."""

    async def scenario() -> bool:
        done = False

        async def work() -> None:
            nonlocal done
            await anyio.to_thread.run_sync(time.sleep, 0.05)
            done = True

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while not done:
                await anyio.lowlevel.checkpoint()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        return done

    assert run(scenario, backend=backend, max_turns=50)


def test_thread_of_trios_own_is_no_livelock() -> None:
    """A thread that trio starts without anyio counts as well."""
    trio = pytest.importorskip("trio")

    async def scenario() -> None:
        done = False

        async def work() -> None:
            nonlocal done
            await trio.to_thread.run_sync(time.sleep, 0.05)
            done = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            while not done:
                await trio.lowlevel.checkpoint()

    run(scenario, backend="trio", max_turns=50)


class Compiled:
    """Is awaited like a coroutine of Cython's, whose frame does not say in which line it is."""

    __slots__ = ("cr_await", "cr_frame", "inner")  # as in C: a class of Python's may do anything

    def __init__(self) -> None:
        self.cr_await = None
        made: dict[str, Any] = {}
        code = compile("from sys import _getframe; frame = _getframe()", "compiled.pyx", "exec")
        code = code.replace(co_name="execute", co_qualname="execute", co_linetable=b"")
        exec(code, made)  # noqa: S102 - to have a frame
        self.cr_frame = made["frame"]

    def __await__(self) -> Any:
        self.inner: Any = anyio.sleep_forever().__await__()
        return self

    def __next__(self) -> Any:
        return self.inner.send(None)

    def send(self, value: object) -> Any:
        """Go on."""
        return self.inner.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        return self.inner.throw(*error)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_compiled_coroutine_among_the_tasks(backend: str, schedule: Schedule | None) -> None:
    """What is stuck is told, with the place that it has."""

    async def ask() -> None:
        await Compiled()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(spin)

    with pytest.raises(Livelock, match=r"compiled\.pyx:0 in execute"):
        run(main, backend=backend, max_turns=1000, schedule=schedule)
