"""Inside ``async with emitter:``: emit_nowait, leaving, and what an error does there."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint

from mtaio.events import Event, EventEmitter, EventKey
from mtaio.exceptions import EventOverflowError, StrayCancellationError
from mtaio.testing import assert_no_checkpoints, assert_quiescent, run, settle
from tests.events.test_emit_cancellation import Nursery
from tests.events.test_errors import Fatal, cancels_itself


class Collector:
    """A handler that takes its time, and notes what it got when."""

    def __init__(self, seconds: float = 1) -> None:
        self.log: list[tuple[float, Any]] = []
        self.seconds = seconds

    async def handle(self, event: Event[Any]) -> None:
        """Take a while."""
        await anyio.sleep(self.seconds)
        self.log.append((anyio.current_time(), event.data))


async def test_emit_nowait_delivers_in_order() -> None:
    """One event after another, in the order of the calls; leaving the block waits for all."""
    emitter, collector = EventEmitter(), Collector()
    emitter.on("a", collector.handle)
    async with emitter:
        with assert_no_checkpoints():
            for number in range(3):
                emitter.emit_nowait("a", number)
        assert collector.log == []
        assert emitter.statistics().pending == 3
        await anyio.sleep(1.5)
        assert collector.log == [(1, 0)]
        assert emitter.statistics().pending == 2
    assert collector.log == [(1, 0), (2, 1), (3, 2)]
    assert_quiescent(emitter)
    assert emitter.statistics().names["a"].handled == 3


async def test_emit_nowait_from_handlers() -> None:
    """Plain handlers may call it, also while the block is being left."""
    emitter = EventEmitter()
    log: list[int] = []

    @emitter.on("a")
    def handle(event: Event[int]) -> None:
        log.append(event.data)
        if event.data < 5:
            emitter.emit_nowait("a", event.data + 1)

    async with emitter:
        emitter.emit_nowait("a", 0)
    assert log == [0, 1, 2, 3, 4, 5]


async def test_event_of_emit_nowait_has_the_time_of_the_call() -> None:
    """Not that of its delivery; keys and metadata work as for emit."""
    emitter, key = EventEmitter(), EventKey[str]("a.b")
    seen: list[Event[str]] = []
    emitter.on("*", seen.append)
    emitter.on("slow", Collector(5).handle)
    before = await emitter.emit("before")
    await anyio.sleep(1)
    async with emitter:
        emitter.emit_nowait("slow")
        emitter.emit_nowait(key, "data", metadata={"source": "here"})
    _, slow, soon = seen
    assert slow.time - before.time == soon.time - before.time == 1
    assert (soon.name, soon.data, soon.metadata) == ("a.b", "data", {"source": "here"})


async def test_emit_nowait_without_a_limit() -> None:
    """With None every event is taken."""
    emitter, collector = EventEmitter(max_pending=None), Collector()
    emitter.on("a", collector.handle)
    async with emitter:
        for number in range(2000):
            emitter.emit_nowait("a", number)
        assert (emitter.statistics().pending, emitter.statistics().max_pending) == (2000, None)
    assert [data for _, data in collector.log] == [*range(2000)]


async def test_emit_nowait_is_bounded() -> None:
    """When it is full: an error at once, which is anyio.WouldBlock too; the others are kept."""
    emitter, collector = EventEmitter(max_pending=2, name="bus"), Collector()
    emitter.on("a", collector.handle)
    async with emitter:
        emitter.emit_nowait("a", 0)
        emitter.emit_nowait("a", 1)
        message = r"^<EventEmitter 'bus': 1 handlers> holds max_pending=2 events that are not"
        with pytest.raises(EventOverflowError, match=message) as caught:
            emitter.emit_nowait("a", 2)
        assert isinstance(caught.value, anyio.WouldBlock)
        assert caught.value.name == "bus"
        await anyio.sleep(0.5)
        emitter.emit_nowait("a", 3)  # the one that is being delivered does not wait any more
        with pytest.raises(anyio.WouldBlock):
            emitter.emit_nowait("a", 4)
        assert emitter.statistics().pending == 3
        await anyio.sleep(1)
        emitter.emit_nowait("a", 5)
    assert [data for _, data in collector.log] == [0, 1, 3, 5]
    assert (emitter.statistics().rejected, emitter.statistics().max_pending) == (2, 2)


async def test_emit_nowait_lets_others_run() -> None:
    """Delivering many events whose handlers do not suspend does not stop the event loop."""
    emitter = EventEmitter()
    emitter.on("a", lambda _: None)
    rounds = 0
    async with emitter:
        for _ in range(1000):
            emitter.emit_nowait("a")
        while emitter.statistics().pending:
            rounds += 1
            await checkpoint()
    assert 1000 / 64 <= rounds <= 2 * 1000 / 64


async def test_emit_nowait_needs_the_block() -> None:
    """Before and after it, the error says what to do."""
    emitter = EventEmitter()
    message = r"^<EventEmitter: 0 handlers> is not entered, and emit_nowait\(\) works only inside"
    with pytest.raises(RuntimeError, match=message):
        emitter.emit_nowait("a")
    async with emitter:
        with pytest.raises(ValueError, match=r"^name='\*' is a pattern"):
            emitter.emit_nowait("*")
        with pytest.raises(TypeError, match=r"^name=5 is an int"):
            emitter.emit_nowait(5)  # type: ignore[call-overload] # the subject
    with pytest.raises(RuntimeError, match=message):
        emitter.emit_nowait("a")


async def test_emit_nowait_from_a_thread() -> None:
    """The error says how to do it, and that works."""
    emitter = EventEmitter()
    seen: list[object] = []
    emitter.on("a", lambda event: seen.append(event.data))

    def in_thread() -> None:
        with pytest.raises(
            RuntimeError, match=r"was entered in another event loop, and emit_nowait"
        ):
            emitter.emit_nowait("a", 1)
        from_thread.run_sync(emitter.emit_nowait, "a", 2)

    async with emitter:
        await to_thread.run_sync(in_thread)
    assert seen == [2]


async def test_block_left_by_an_error_drops_and_counts() -> None:
    """The body's error comes as it is; events not delivered are counted for their names."""
    emitter, collector = EventEmitter(), Collector()
    emitter.on("*", collector.handle)
    with pytest.raises(ValueError, match=r"^the body fails$"):  # noqa: PT012 - the block is left
        async with emitter:
            for name in ("a", "b", "b", "c", "a"):
                emitter.emit_nowait(name)
            await anyio.sleep(0.5)
            raise ValueError("the body fails")
    statistics = emitter.statistics()
    assert collector.log == []
    assert statistics.emitted == 1
    assert statistics.dropped == 4
    assert statistics.names["a"].dropped == 1
    assert statistics.other.dropped == 3  # no event of the other names was ever emitted
    assert statistics.pending == 0


async def test_block_cancelled_while_it_drains() -> None:
    """Leaving can be cancelled; what is left is dropped and counted."""
    emitter, collector = EventEmitter(), Collector()
    emitter.on("a", collector.handle)
    with anyio.move_on_after(2.5) as scope:
        async with emitter:
            for number in range(5):
                emitter.emit_nowait("a", number)
    assert scope.cancelled_caught
    assert collector.log == [(1, 0), (2, 1)]
    assert emitter.statistics().dropped == 2
    assert_quiescent(emitter)


async def test_body_cancelled() -> None:
    """The same when the cancellation hits the body."""
    emitter, collector = EventEmitter(), Collector()
    emitter.on("a", collector.handle)
    with anyio.move_on_after(1.5) as scope:
        async with emitter:
            for number in range(5):
                emitter.emit_nowait("a", number)
            await anyio.sleep(100)
    assert scope.cancelled_caught
    assert collector.log == [(1, 0)]
    assert emitter.statistics().dropped == 3


async def test_failure_of_emit_nowait_ends_the_block() -> None:
    """It has no caller to go to: the body is cancelled, and the block raises the group."""
    emitter = EventEmitter()
    error = ValueError("bad")
    log: list[str] = []

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        await anyio.sleep(1)
        raise error

    with pytest.raises(ExceptionGroup, match=r"^handlers of 'a'") as caught:  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_nowait("a")
            emitter.emit_nowait("a")
            try:
                await anyio.sleep(100)
            finally:
                log.append(f"body ended at {anyio.current_time():g}")
                emitter.emit_nowait("a")  # it is being cancelled: no error of its own
    assert caught.value.exceptions == (error,)
    assert log == ["body ended at 1"]
    assert emitter.statistics().dropped == 2


async def test_failed_delivery_is_not_pending() -> None:
    """What is counted is what will not be delivered any more."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        raise ValueError("bad")

    with pytest.raises(ExceptionGroup):  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_nowait("a")
            emitter.emit_nowait("a")
            try:
                await anyio.sleep(100)
            finally:
                assert emitter.statistics().pending == 1
    assert emitter.statistics().dropped == 1


async def test_failure_of_emit_nowait_while_the_block_drains() -> None:
    """It is raised by leaving."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        await checkpoint()
        raise ValueError("bad")

    with pytest.raises(ExceptionGroup, match=r"^handlers of 'a' failed"):
        async with emitter:
            emitter.emit_nowait("a")


async def test_failure_of_emit_nowait_and_an_error_of_the_body() -> None:
    """Neither hides the other."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        await anyio.sleep(1)
        raise ValueError("handler")

    with pytest.raises(BaseExceptionGroup, match=r"^errors of the") as caught:  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_nowait("a")
            try:
                await anyio.sleep(100)
            finally:
                raise OSError("body")
    body, delivery = caught.value.exceptions
    assert isinstance(body, OSError)
    assert isinstance(delivery, ExceptionGroup)


async def test_emit_nowait_in_a_block_that_has_failed() -> None:
    """A body that was just woken goes on to its cancellation: the failure stays the only error."""
    emitter = EventEmitter()
    send, receive = anyio.create_memory_object_stream[str](1)

    @emitter.on("a")
    def fail(_: Event[Any]) -> None:
        send.send_nowait("the body is woken")
        raise ValueError("handler")

    async with send, receive:
        with pytest.raises(ExceptionGroup, match=r"^handlers of 'a' failed"):  # noqa: PT012 - it is left
            async with emitter:
                emitter.emit_nowait("a")
                async for _ in receive:
                    emitter.emit_nowait("b")
    assert emitter.statistics().dropped == 1


async def test_emit_nowait_in_a_cancelled_task_after_the_block() -> None:
    """The task's cancellation comes at its next checkpoint, and no error before it."""
    emitter = EventEmitter()
    woken = anyio.Event()

    async def work() -> None:
        await woken.wait()
        emitter.emit_nowait("a")

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        async with emitter:
            await settle()
        woken.set()
        group.cancel_scope.cancel()
    assert emitter.statistics().dropped == 1


async def test_failure_of_emit_nowait_and_an_error_in_the_bodys_cancellation() -> None:
    """Neither is hidden by the cancellation, which was the block's own."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        raise ValueError("handler")

    with pytest.raises(BaseExceptionGroup, match=r"^errors of the") as caught:  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_nowait("a")
            try:
                await anyio.sleep(100)
            except anyio.get_cancelled_exc_class() as error:
                raise BaseExceptionGroup("as of a task group", [error, OSError("body")]) from None
    assert caught.value.split(OSError)[0] is not None
    assert caught.value.split(ValueError)[0] is not None
    assert caught.value.split(anyio.get_cancelled_exc_class())[0] is None


async def test_base_exception_of_emit_nowait_comes_bare() -> None:
    """As that of emit does."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        raise Fatal

    with pytest.raises(Fatal):
        async with emitter:
            emitter.emit_nowait("a")


async def test_base_exception_of_the_body_comes_bare() -> None:
    """It is not wrapped in a group."""
    with pytest.raises(Fatal):
        async with EventEmitter():
            raise Fatal


async def test_stray_cancellation_of_a_delivery_is_its_failure() -> None:
    """It is an error of the handler like any other, and does not end the block in silence."""
    emitter = EventEmitter()
    emitter.on("a", cancels_itself)
    with pytest.raises(ExceptionGroup, match=r"^handlers of 'a' failed") as caught:  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_nowait("a")
            await anyio.sleep(100)
    (failure,) = caught.value.exceptions
    assert isinstance(failure, StrayCancellationError)


async def test_errors_that_are_logged_do_not_end_the_block() -> None:
    """Nor those that on_error takes."""
    seen: list[str] = []
    for emitter in (
        EventEmitter(errors="log"),
        EventEmitter(on_error=lambda error, *_: seen.append(str(error))),
    ):

        @emitter.on("a")
        def fail(event: Event[int]) -> None:
            msg = f"bad {event.data}"
            raise ValueError(msg)

        async with emitter:
            emitter.emit_nowait("a", 1)
            emitter.emit_nowait("a", 2)
        assert emitter.statistics().failed == 2
    assert seen == ["bad 1", "bad 2"]


async def test_entering_can_be_cancelled() -> None:
    """Then the emitter was not entered, or is left at once; it can be entered again."""
    emitter = EventEmitter()
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with emitter:
            await checkpoint()
    assert scope.cancelled_caught
    async with emitter:
        pass


VALUE: contextvars.ContextVar[str] = contextvars.ContextVar("value", default="unset")


async def test_delivery_runs_in_the_blocks_context() -> None:
    """Not in that of the first caller of emit_nowait."""
    emitter = EventEmitter()
    seen: list[str] = []
    emitter.on("a", lambda _: seen.append(VALUE.get()))
    VALUE.set("the block's")

    async def caller() -> None:
        VALUE.set("the caller's")
        emitter.emit_nowait("a")

    async with emitter, anyio.create_task_group() as group:
        group.start_soon(caller)
    assert seen == ["the block's"]


async def test_cancellation_in_a_group_is_a_cancellation() -> None:
    """As a backend may raise it out of the body."""
    emitter = EventEmitter()
    with anyio.move_on_after(1) as scope:
        async with emitter:
            emitter.emit_nowait("a")
            try:
                await anyio.sleep(100)
            except anyio.get_cancelled_exc_class() as error:
                raise BaseExceptionGroup("cancelled", [error]) from None
    assert scope.cancelled_caught
    assert_quiescent(emitter)


async def test_cancellation_of_a_delivery_in_a_group_does_not_leave_the_block() -> None:
    """As a nursery of trio's raises it: the block was cancelled because its body failed."""
    emitter = EventEmitter()
    emitter.on("a", Nursery())
    emitter.on("b", Nursery(KeyError("clean-up")))
    with pytest.raises(OSError, match=r"^body$"):  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_nowait("a")
            await anyio.sleep(1)
            raise OSError("body")
    with pytest.raises(BaseExceptionGroup, match=r"^errors of the") as caught:  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_nowait("b")
            await anyio.sleep(1)
            raise OSError("body")
    assert caught.value.split(anyio.get_cancelled_exc_class())[0] is None
    assert caught.value.split(KeyError)[0] is not None
    with anyio.move_on_after(1) as scope:
        async with emitter:
            emitter.emit_nowait("a")
    assert scope.cancelled_caught


async def test_error_of_the_body_survives_a_cancellation_while_it_is_left() -> None:
    """As with a task group: the scope says later that it was cancelled."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def cleans_up(_: Event[int]) -> None:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)

    with pytest.raises(OSError, match=r"^body$"), anyio.move_on_after(2):  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_nowait("a")
            await anyio.sleep(1)
            raise OSError("body")
    assert anyio.current_time() == 6


async def test_each_delivery_has_the_blocks_context() -> None:
    """What the handlers of one event set is not seen by the next, waiting already or not."""
    user = contextvars.ContextVar("user", default="none")
    emitter = EventEmitter()
    seen: list[str] = []

    @emitter.on("login")
    async def login(event: Event[str]) -> None:
        await checkpoint()
        seen.append(user.get())
        user.set(event.data)
        await checkpoint()
        seen.append(user.get())

    @emitter.on("fail")
    async def fail(_: Event[None]) -> None:
        with anyio.move_on_after(1):
            await anyio.sleep(100)
        seen.append(user.get())

    async with emitter:
        emitter.emit_nowait("login", "ada")
        emitter.emit_nowait("login", "bob")
        emitter.emit_nowait("fail")
        await anyio.sleep(2)
        emitter.emit_nowait("login", "cyd")
    assert seen == ["none", "ada", "none", "bob", "none", "none", "cyd"]


async def test_block_does_not_run_what_other_tasks_emit() -> None:
    """Those handlers run in the emitting task: the block neither awaits nor cancels them."""
    emitter, collector = EventEmitter(), Collector(2)
    emitter.on("a", collector.handle)
    emitter.on("a", collector.handle)
    async with anyio.create_task_group() as group:
        with pytest.raises(OSError, match=r"^body$"):  # noqa: PT012 - it is left
            async with emitter:
                group.start_soon(emitter.emit, "a", 1)
                await anyio.sleep(1)
                raise OSError("body")
        assert anyio.current_time() == 1
    assert collector.log == [(2, 1), (2, 1)]


async def test_emit_nowait_while_the_block_is_left() -> None:
    """It is taken while the block waits for a delivery, and refused after the last one."""
    emitter, collector = EventEmitter(), Collector(1)
    emitter.on("a", collector.handle)

    async def outside(data: int, seconds: float) -> None:
        await anyio.sleep(seconds)
        emitter.emit_nowait("a", data)

    async def too_late() -> None:
        with pytest.raises(RuntimeError, match=r"is closing and takes no more|is not entered, and"):
            emitter.emit_nowait("a")

    async with anyio.create_task_group() as group:
        group.start_soon(outside, 2, 0.5)
        async with emitter:
            emitter.emit_nowait("a", 1)
        async with emitter:
            group.start_soon(too_late)
    assert collector.log == [(1, 1), (2, 2)]


async def test_stray_cancellation_of_the_body_is_an_error() -> None:
    """The group of the block would take it for its own."""
    emitter = EventEmitter()
    with pytest.raises(StrayCancellationError, match=r"^tasks of <EventEmitter: 0 handlers> were"):
        async with emitter:
            await cancels_itself(Event("a", 1))


@pytest.mark.parametrize("last", [False, True])
def test_block_reports_that_its_tasks_were_cancelled_by_others(last: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """As by "cancel all tasks": it does not end as if all had been delivered."""

    async def main() -> None:
        emitter, collector = EventEmitter(), Collector()
        emitter.on("a", collector.handle)
        mine = asyncio.all_tasks()
        message = r"^tasks of <EventEmitter: 1 handlers> were cancelled although its block was not"
        with pytest.raises(StrayCancellationError, match=message):  # noqa: PT012 - it is left
            async with emitter:
                emitter.emit_nowait("a")
                for task in asyncio.all_tasks() - mine:
                    task.cancel()
                if not last:
                    await anyio.sleep(10)
                    collector.log.append((10, "the body went on"))
        assert collector.log == []
        assert emitter.statistics().dropped == 1

    run(main, backend="asyncio")
