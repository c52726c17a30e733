"""Waiting for one event."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread

from mtaio.events import Event, EventEmitter, EventKey
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.testing import Schedule, assert_checkpoints, assert_quiescent, run, settle
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


async def test_event_is_returned() -> None:
    """The object that the emit returns; later events are not affected."""
    emitter = EventEmitter()
    events: list[Event[Any]] = []

    async def wait() -> None:
        events.append(await emitter.wait_for(EventKey[int]("a.b")))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await settle()
        assert emitter.statistics().wait_fors == 1
        await emitter.emit("a", 0)
        event = await emitter.emit("a.b", 1)
        await emitter.emit("a.b", 2)
    assert events == [event]
    assert_quiescent(emitter)
    assert emitter.statistics().handled == 1


async def test_it_listens_before_anything_else_can_run() -> None:
    """Its first step registers it: an event emitted by the next task is not missed."""
    emitter = EventEmitter()
    call = emitter.wait_for("a")
    steps = call.__await__()
    steps.send(None)
    assert emitter.statistics().wait_fors == 1
    steps.close()
    assert emitter.statistics().wait_fors == 0


async def test_patterns_and_predicates() -> None:
    """The first matching event for which the predicate is true."""
    emitter = EventEmitter()

    async def produce() -> None:
        for number in range(5):
            await emitter.emit(f"a.{number % 2}", number)

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        event = await emitter.wait_for("a.*", lambda event: event.data > 2)
    assert (event.name, event.data) == ("a.1", 3)


async def test_error_of_the_predicate() -> None:
    """It is raised by wait_for, not by the emit."""
    emitter = EventEmitter()

    async def produce() -> None:
        await emitter.emit("a", 0)
        await emitter.emit("a", 1)

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        with pytest.raises(ZeroDivisionError):
            await emitter.wait_for("a", lambda event: 1 / event.data)
    assert emitter.statistics().failed == 0
    assert_quiescent(emitter)


async def test_timeout() -> None:
    """An error of mtaio and the builtin one, with its timeout and deadline."""
    emitter = EventEmitter(name="bus")
    await anyio.sleep(1)
    with pytest.raises(TimeoutError, match=r"^no event 'a' within 2\.5 s$") as caught:
        await emitter.wait_for("a", timeout=2.5)
    error = caught.value
    assert isinstance(error, MTAIOTimeoutError)
    assert (error.timeout, error.deadline, error.name) == (2.5, 3.5, "bus")
    assert anyio.current_time() == 3.5
    assert_quiescent(emitter)


async def test_timeout_of_zero_is_a_checkpoint() -> None:
    """Other tasks run once."""
    emitter = EventEmitter()
    with assert_checkpoints(), pytest.raises(TimeoutError):
        await emitter.wait_for("a", timeout=0)


async def test_event_in_the_moment_of_the_timeout_counts() -> None:
    """Whichever comes first, an event that was handled is returned."""
    emitter = EventEmitter()
    async with anyio.create_task_group() as group:

        async def produce() -> None:
            await anyio.sleep(1)
            await emitter.emit("a", 1)

        group.start_soon(produce)
        try:
            event = await emitter.wait_for("a", timeout=1)
        except TimeoutError:
            assert emitter.statistics().handled == 0
        else:
            assert event.data == 1
            assert emitter.statistics().handled == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_event_after_the_timeout_has_fired_counts(backend: str) -> None:
    """As long as the task has not run: what the emit counts as handled is returned."""
    handled: list[int] = []

    async def main() -> None:
        emitter = EventEmitter()

        async def produce() -> None:
            await anyio.sleep(1)
            await emitter.emit("a", 1)

        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            try:
                await emitter.wait_for("a", timeout=1)
            except TimeoutError:
                returned = 0
            else:
                returned = 1
        assert emitter.statistics().handled == returned
        handled.append(returned)

    for seed in range(32):
        run(main, backend=backend, schedule=Schedule(seed=seed))
    assert 1 in handled


async def test_cancelled_wait_leaves_no_trace() -> None:
    """It stops listening."""
    emitter = EventEmitter()
    with anyio.move_on_after(1) as scope:
        await emitter.wait_for("a")
    assert scope.cancelled_caught
    assert_quiescent(emitter)


async def test_event_that_is_stopped_before_its_tier_is_not_seen() -> None:
    """Unless it waits in a higher tier."""
    emitter = EventEmitter()
    emitter.on("a", Event.stop, priority=1)
    async with anyio.create_task_group() as group:

        async def produce() -> None:
            await emitter.emit("a", 1)

        group.start_soon(produce)
        event = await emitter.wait_for("a", priority=2)
        assert event.stopped
        group.start_soon(produce)
        with pytest.raises(TimeoutError):
            await emitter.wait_for("a", timeout=1)


async def test_bad_input() -> None:
    """Each mistake is named at once, and nothing is registered."""
    emitter: Any = EventEmitter()

    async def asynchronous(_: Event[Any]) -> bool:
        return True

    def generates(_: Event[Any]) -> Iterator[bool]:
        yield False

    with pytest.raises(ValueError, match=r"^name='' is empty"):
        await emitter.wait_for("")
    with pytest.raises(TypeError, match=r"^predicate=5 is an int, which is not callable\. Pass a"):
        await emitter.wait_for("a", 5)
    with pytest.raises(TypeError, match=r"^predicate=.* is async, and would not be awaited\. Pass"):
        await emitter.wait_for("a", asynchronous)
    with pytest.raises(TypeError, match=r"^predicate=.* is a generator function: calling it would"):
        await emitter.wait_for("a", generates)  # a generator is true, whatever it would yield
    with pytest.raises(ValueError, match=r"^timeout=-1 is less than 0"):
        await emitter.wait_for("a", timeout=-1)
    with pytest.raises(TypeError, match=r"^priority='x' is a str, not an int"):
        await emitter.wait_for("a", priority="x")
    assert_quiescent(emitter)


def in_two_loops(emitter: EventEmitter, emit: Callable[[], None]) -> None:
    """Call ``emit`` while another thread's loop waits for the event."""
    ready, done = threading.Event(), threading.Event()

    async def wait() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(emitter.wait_for, "a")
            await anyio.wait_all_tasks_blocked()
            ready.set()
            await to_thread.run_sync(done.wait, 10)
            group.cancel_scope.cancel()

    thread = threading.Thread(target=anyio.run, args=(wait,))
    thread.start()
    assert ready.wait(10)
    try:
        emit()
    finally:
        done.set()
        thread.join(10)


def test_waiter_in_another_running_loop_is_an_error() -> None:
    """It cannot be woken from here: the emit fails, and says what to do."""
    emitter = EventEmitter()
    errors: list[BaseException] = []

    async def emit() -> None:
        try:
            await emitter.emit("a", 1)
        except ExceptionGroup as group:
            errors.extend(group.exceptions)

    in_two_loops(emitter, lambda: anyio.run(emit))
    (error,) = errors
    assert isinstance(error, RuntimeError)
    assert str(error).startswith("a task of another event loop waits for 'a'. One loop at a time")


def test_waiter_of_a_loop_that_is_over_is_ignored() -> None:
    """No task can be woken there."""
    emitter = EventEmitter()
    loop = asyncio.new_event_loop()
    task = loop.create_task(emitter.wait_for("a"))
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False  # type: ignore[attr-defined] # it is abandoned on purpose
    loop.close()

    async def emit() -> int:
        await emitter.emit("a", 1)
        return emitter.statistics().handled

    assert run(emit) == 0
