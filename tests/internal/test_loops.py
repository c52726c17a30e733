"""Which event loop am I on, and is the one I knew still there?"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from contextvars import copy_context
from functools import partial
from types import ModuleType

import anyio
import pytest
from anyio import to_thread

from mtaio._internal import backend as backends
from mtaio._internal import clock, loops
from mtaio._internal.backend import _asyncio as asyncio_backend
from mtaio._internal.backend import in_event_loop, task_name
from mtaio.testing import run, settle
from tests.backends import BACKENDS

TWO_LOOPS = (
    r"^'limiter' is in use by tasks of another running event loop\. Only one loop at a time can "
    r"use it: give each loop an object of its own, or hand the work to one loop with "
    r"anyio\.from_thread\.run\(\)\.$"
)


async def get_loop() -> object:
    """Return the running loop, as `loops` knows it."""
    return loops.current_loop()


async def test_current_loop_is_one_object() -> None:
    """The token of a loop is the same object in all its tasks."""
    seen: list[object] = []

    async def look() -> None:
        seen.append(loops.current_loop())

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        group.start_soon(look)
    assert seen == [loops.current_loop()] * 2
    assert loops.is_current(seen[0])


def test_running_loop(backend: str) -> None:
    """What tells fast of a loop tells of it alone: no other one, and no place without a loop."""

    async def look_at_own() -> object:
        loop = loops.current_loop()
        assert backends.of(loop).running_loop() is loop
        return loop

    async def look_at_other(loop: object) -> None:
        assert backends.of(loop).running_loop() is not loop

    first = run(look_at_own, backend=backend)
    assert backends.of(first).running_loop() is not first
    for other in BACKENDS:
        run(partial(look_at_other, first), backend=other)


def test_no_current_loop() -> None:
    """Without a loop there is no token, and none is current."""
    with pytest.raises(anyio.NoEventLoopError):
        loops.current_loop()
    assert not loops.is_current(None)


def test_is_over(backend: str) -> None:
    """A loop is over when it can never run again, and not before."""

    async def scenario() -> object:
        loop = loops.current_loop()
        assert not loops.is_over(loop)
        assert not await to_thread.run_sync(loops.is_over, loop)
        return loop

    first = run(scenario, backend=backend)
    assert loops.is_over(first)

    async def other() -> None:
        assert loops.is_over(first)
        assert not loops.is_current(first)

    run(other, backend=backend)


async def look_around() -> list[object]:
    """Return what `loops` says here, and what it says in a worker thread."""
    here = [in_event_loop(), task_name()]
    return [*here, *await to_thread.run_sync(lambda: [in_event_loop(), task_name()])]


async def test_running_task_has_a_name() -> None:
    """A task is in an event loop and has a name; its worker threads are not, and have none."""
    seen: list[object] = []

    async def look() -> None:
        seen.extend(await look_around())

    async with anyio.create_task_group() as group:
        group.start_soon(look, name="the looker")
    assert seen == [True, "the looker", False, None]


def test_no_task_no_name() -> None:
    """Where no loop runs there is no task, and after a loop has ended there is none again."""
    for _ in range(2):
        assert not in_event_loop()
        assert task_name() is None
        assert run(look_around)[0] is True


def test_callback_is_in_the_loop_and_in_no_task() -> None:
    """A callback of asyncio's runs in the loop, and has no name because it has no task."""
    seen: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: seen.extend([in_event_loop(), task_name()]))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == [True, None]


def test_between_the_tasks_of_trio() -> None:
    """Where trio itself calls, between two tasks, the loop runs and no task does."""
    trio = pytest.importorskip("trio")
    seen: list[object] = []

    class Onlooker(trio.abc.Instrument):  # type: ignore[misc, name-defined]  # trio may be missing
        def before_io_wait(self, _: float) -> None:
            seen.append((in_event_loop(), task_name()))

    trio.run(trio.lowlevel.checkpoint, instruments=[Onlooker()])
    assert set(seen) == {(True, None)}


@pytest.mark.parametrize("known", [None, ModuleType("half imported")], ids=["none", "half"])
def test_backend_that_is_not_imported(
    monkeypatch: pytest.MonkeyPatch, known: ModuleType | None
) -> None:
    """A backend that was not imported, or that a thread is importing, runs no loop."""
    for name in ("asyncio", "trio"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        if known is not None:
            monkeypatch.setitem(sys.modules, name, known)
    assert not in_event_loop()
    assert task_name() is None


async def test_call_in_calls_in_the_thread_of_the_loop() -> None:
    """A worker thread hands a call to the loop, and does not wait for it."""
    called_in: list[int] = []
    loop = loops.current_loop()
    called = anyio.Event()

    def call() -> None:
        called_in.append(threading.get_ident())
        called.set()

    assert await to_thread.run_sync(loops.call_in, loop, call)
    await called.wait()
    assert called_in == [threading.get_ident()]


def test_call_in_a_loop_that_is_over(backend: str) -> None:
    """A loop that is over calls nothing, and says so."""
    loop = run(get_loop, backend=backend)
    called: list[int] = []
    assert not loops.call_in(loop, lambda: called.append(1))
    run(settle, backend=backend)
    assert called == []


async def test_call_at() -> None:
    """A function is called at its moment, and not if the loop ends before."""
    called: list[float] = []
    loop = loops.current_loop()
    for moment in (2, 1, 9):
        loops.call_at(loop, anyio.current_time() + moment, lambda: called.append(clock.now()))
    start = clock.now()
    await anyio.sleep(5)
    assert called == [start + 1, start + 2]


def test_exit_from() -> None:
    """It ends asyncio's loop, with all that runs in it, as `sys.exit` does; trio's goes on."""
    ended: list[bool] = []

    async def main() -> None:
        loops.exit_from(loops.current_loop(), 7)
        try:
            await anyio.sleep(1)
        finally:
            ended.append(True)

    with pytest.raises(SystemExit) as caught:
        anyio.run(main)
    assert caught.value.code == 7
    assert ended == [True]


async def test_exit_from_where_only_a_task_can_end_its_own() -> None:
    """Then nothing happens."""
    pytest.importorskip("trio")
    loops.exit_from(object(), 7)
    await settle()


def test_task_that_comes_too_late() -> None:
    """A task that is asked for when trio has ended the others is not started, and told so."""
    pytest.importorskip("trio")
    ended: list[str] = []

    async def main() -> None:
        loop = loops.current_loop()

        def start() -> None:
            loops.start_task(loop, late, copy_context(), partial(ended.append, "late"))

        async def late() -> None:
            await anyio.sleep_forever()

        async def early() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                loops.call_in(loop, start)

        loops.start_task(loop, early, copy_context(), partial(ended.append, "early"))
        await settle()

    run(main, backend="trio")
    assert ended == ["early", "late"]


def test_handler_of_somebody_else_is_left_alone() -> None:
    """A handler of Ctrl-C that is not asyncio's own ends with nothing."""
    before = signal.getsignal(signal.SIGINT)
    asyncio_backend.end_sigint(before)
    assert signal.getsignal(signal.SIGINT) is before


def test_mark_where_sniffio_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """AnyIO does not ask it then, and nothing is to be done."""
    context = copy_context()
    monkeypatch.delitem(sys.modules, "sniffio", raising=False)
    asyncio_backend.mark(context)
    assert context == copy_context()
