"""Inside ``async with emitter:``: emit_soon, leaving, and what an error does there."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import suppress
from typing import Any, cast

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint

from mtaio.events import Event, EventEmitter, EventKey
from mtaio.exceptions import EventOverflowError, StrayCancellationError
from mtaio.testing import assert_no_checkpoints, assert_quiescent, run
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


async def test_emit_soon_delivers_in_order() -> None:
    """One event after another, each to its end, in the order of the calls; leaving waits."""
    emitter, collector = EventEmitter(), Collector()
    emitter.on("a", collector.handle)
    async with emitter:
        with assert_no_checkpoints():
            for number in range(3):
                emitter.emit_soon("a", number)
        assert collector.log == []
        assert emitter.statistics().pending == 3
        await anyio.sleep(1.5)
        assert collector.log == [(1, 0)]
        assert emitter.statistics().pending == 2
    assert collector.log == [(1, 0), (2, 1), (3, 2)]
    assert_quiescent(emitter)
    assert emitter.statistics().names["a"].handled == 3


async def test_emit_soon_from_handlers() -> None:
    """Sync handlers may have more emitted, also while the block is being left."""
    emitter = EventEmitter()
    log: list[int] = []

    @emitter.on("a")
    def handle(event: Event[int]) -> None:
        log.append(event.data)
        if event.data < 5:
            emitter.emit_soon("a", event.data + 1)

    async with emitter:
        emitter.emit_soon("a", 0)
    assert log == [0, 1, 2, 3, 4, 5]


async def test_event_knows_when_emit_soon_was_called() -> None:
    """Its time is not that of its delivery; keys and metadata come along."""
    emitter, key = EventEmitter(), EventKey[str]("a.b")
    seen: list[Event[str]] = []
    emitter.on("*", seen.append)
    emitter.on("slow", Collector(5).handle)
    before = await emitter.emit("before")
    await anyio.sleep(1)
    async with emitter:
        emitter.emit_soon("slow")
        emitter.emit_soon(key, "data", source="here")
    _, slow, soon = seen
    assert slow.time - before.time == soon.time - before.time == 1
    assert (soon.name, soon.data, soon.metadata) == ("a.b", "data", {"source": "here"})


async def test_emit_soon_is_bounded() -> None:
    """Full means an error at once, which is anyio.WouldBlock too; nothing is lost by it."""
    emitter, collector = EventEmitter(max_pending=2, name="bus"), Collector()
    emitter.on("a", collector.handle)
    async with emitter:
        emitter.emit_soon("a", 0)
        emitter.emit_soon("a", 1)
        message = r"^<EventEmitter 'bus': 1 handlers> holds max_pending=2 events that are not"
        with pytest.raises(EventOverflowError, match=message) as caught:
            emitter.emit_soon("a", 2)
        assert isinstance(caught.value, anyio.WouldBlock)
        assert caught.value.name == "bus"
        await anyio.sleep(0.5)
        emitter.emit_soon("a", 3)  # the one that is being delivered does not wait any more
        with pytest.raises(anyio.WouldBlock):
            emitter.emit_soon("a", 4)
        assert emitter.statistics().pending == 3
        await anyio.sleep(1)
        emitter.emit_soon("a", 5)
    assert [data for _, data in collector.log] == [0, 1, 3, 5]


async def test_emit_soon_lets_others_run() -> None:
    """Delivering many events whose handlers do not suspend does not stop the event loop."""
    emitter = EventEmitter()
    emitter.on("a", lambda _: None)
    turns = 0
    async with emitter:
        for _ in range(1000):
            emitter.emit_soon("a")
        while emitter.statistics().pending:
            turns += 1
            await checkpoint()
    assert 1000 / 64 <= turns <= 2 * 1000 / 64


async def test_emit_soon_needs_the_block() -> None:
    """Before it, after it, and in the wrong thread: each is told what to do."""
    emitter = EventEmitter()
    message = r"^emit_soon\('a'\) needs an emitter that was entered, in which to deliver it\. Write"
    with pytest.raises(RuntimeError, match=message):
        emitter.emit_soon("a")
    async with emitter:
        with pytest.raises(ValueError, match=r"^name='\*' is a pattern"):
            emitter.emit_soon("*")
        with pytest.raises(TypeError, match=r"^name=5 is a int"):
            emitter.emit_soon(5)  # type: ignore[call-overload] # the subject
    with pytest.raises(RuntimeError, match=message):
        emitter.emit_soon("a")


async def test_emit_soon_from_a_thread() -> None:
    """The thread is told how; and that works."""
    emitter = EventEmitter()
    seen: list[object] = []
    emitter.on("a", lambda event: seen.append(event.data))

    def in_thread() -> None:
        with pytest.raises(
            RuntimeError, match=r"was entered in another event loop\. From a worker"
        ):
            emitter.emit_soon("a", 1)
        from_thread.run_sync(emitter.emit_soon, "a", 2)

    async with emitter:
        await to_thread.run_sync(in_thread)
    assert seen == [2]


async def test_block_that_is_left_takes_no_more() -> None:
    """Once nothing is being delivered, an event could not be either."""
    emitter = EventEmitter()
    emitter.on("a", Collector(1).handle)
    emitter.on("a", Collector(1).handle)
    async with anyio.create_task_group() as group:

        async def outside() -> None:
            await anyio.sleep(0.5)
            with pytest.raises(RuntimeError, match=r"is being entered or left, and takes no event"):
                emitter.emit_soon("a")

        async with emitter:
            group.start_soon(emitter.emit, "a")
            group.start_soon(outside)
            await checkpoint()
            await checkpoint()


async def test_block_left_by_an_error_drops_and_counts() -> None:
    """The body's error comes as it is; events not delivered are counted for their names."""
    emitter, collector = EventEmitter(), Collector()
    emitter.on("*", collector.handle)
    with pytest.raises(ValueError, match=r"^the body fails$"):  # noqa: PT012 - the block is left
        async with emitter:
            for name in ("a", "b", "b", "c", "a"):
                emitter.emit_soon(name)
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
                emitter.emit_soon("a", number)
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
                emitter.emit_soon("a", number)
            await anyio.sleep(100)
    assert scope.cancelled_caught
    assert collector.log == [(1, 0)]
    assert emitter.statistics().dropped == 3


async def test_failure_of_emit_soon_ends_the_block() -> None:
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
            emitter.emit_soon("a")
            emitter.emit_soon("a")
            try:
                await anyio.sleep(100)
            finally:
                log.append(f"body ended at {anyio.current_time():g}")
                with pytest.raises(RuntimeError, match=r"takes no event to deliver"):
                    emitter.emit_soon("a")
    assert caught.value.exceptions == (error,)
    assert log == ["body ended at 1"]
    assert emitter.statistics().dropped == 1


async def test_failed_delivery_is_not_pending() -> None:
    """What is counted is what will not be delivered any more."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        raise ValueError("bad")

    with pytest.raises(ExceptionGroup):  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_soon("a")
            emitter.emit_soon("a")
            try:
                await anyio.sleep(100)
            finally:
                assert emitter.statistics().pending == 1
    assert emitter.statistics().dropped == 1


async def test_failure_of_emit_soon_while_the_block_drains() -> None:
    """It is raised by leaving."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        await checkpoint()
        raise ValueError("bad")

    with pytest.raises(ExceptionGroup, match=r"^handlers of 'a' failed"):
        async with emitter:
            emitter.emit_soon("a")


async def test_failure_of_emit_soon_and_an_error_of_the_body() -> None:
    """Neither hides the other."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        await anyio.sleep(1)
        raise ValueError("handler")

    with pytest.raises(BaseExceptionGroup, match=r"^errors of the") as caught:  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_soon("a")
            try:
                await anyio.sleep(100)
            finally:
                raise OSError("body")
    body, delivery = caught.value.exceptions
    assert isinstance(body, OSError)
    assert isinstance(delivery, ExceptionGroup)


async def test_failure_of_emit_soon_and_an_error_beside_the_bodys_cancellation() -> None:
    """Neither is hidden by the cancellation, which was the block's own."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        raise ValueError("handler")

    with pytest.raises(BaseExceptionGroup, match=r"^errors of the") as caught:  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_soon("a")
            try:
                await anyio.sleep(100)
            except anyio.get_cancelled_exc_class() as error:
                raise BaseExceptionGroup("as of a task group", [error, OSError("body")]) from None
    assert caught.value.split(OSError)[0] is not None
    assert caught.value.split(ValueError)[0] is not None
    assert caught.value.split(anyio.get_cancelled_exc_class())[0] is None


async def test_base_exception_of_emit_soon_comes_bare() -> None:
    """As from emit."""
    emitter = EventEmitter()

    @emitter.on("a")
    async def fail(_: Event[int]) -> None:
        raise Fatal

    with pytest.raises(Fatal):
        async with emitter:
            emitter.emit_soon("a")


async def test_base_exception_of_the_body_comes_bare() -> None:
    """No group wraps what is not the block's."""
    with pytest.raises(Fatal):
        async with EventEmitter():
            raise Fatal


async def test_stray_cancellation_does_not_end_the_block_in_silence() -> None:
    """A handler that raises the backend's cancellation is a failure of its delivery."""
    emitter = EventEmitter()
    emitter.on("a", cancels_itself)
    with pytest.raises(StrayCancellationError, match=r"^delivering an event"):  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_soon("a")
            await anyio.sleep(100)


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
            emitter.emit_soon("a", 1)
            emitter.emit_soon("a", 2)
        assert emitter.statistics().failed == 2
    assert seen == ["bad 1", "bad 2"]


async def test_entered_twice_is_refused() -> None:
    """In one another; one after another is fine."""
    emitter = EventEmitter()
    async with emitter as same:
        assert same is emitter
        with pytest.raises(
            RuntimeError, match=r"^<EventEmitter: 0 handlers> was entered before and"
        ):
            await emitter.__aenter__()
    async with emitter:
        pass


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


VALUE: contextvars.ContextVar[str] = contextvars.ContextVar("value", default="nobody's")


async def test_delivery_runs_in_the_blocks_context() -> None:
    """Not in that of whoever called emit_soon first."""
    emitter = EventEmitter()
    seen: list[str] = []
    emitter.on("a", lambda _: seen.append(VALUE.get()))
    VALUE.set("the block's")

    async def caller() -> None:
        VALUE.set("the caller's")
        emitter.emit_soon("a")

    async with emitter, anyio.create_task_group() as group:
        group.start_soon(caller)
    assert seen == ["the block's"]


async def test_cancellation_in_a_group_is_a_cancellation() -> None:
    """As a backend may raise it out of the body."""
    emitter = EventEmitter()
    with anyio.move_on_after(1) as scope:
        async with emitter:
            emitter.emit_soon("a")
            try:
                await anyio.sleep(100)
            except anyio.get_cancelled_exc_class() as error:
                raise BaseExceptionGroup("cancelled", [error]) from None
    assert scope.cancelled_caught
    assert_quiescent(emitter)


async def test_cancellation_of_a_delivery_in_a_group_does_not_leave_the_block() -> None:
    """As a nursery of trio's raises it: it was the block's, whose body has failed."""
    emitter = EventEmitter()
    emitter.on("a", Nursery())
    emitter.on("b", Nursery(KeyError("clean-up")))
    with pytest.raises(OSError, match=r"^body$"):  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_soon("a")
            await anyio.sleep(1)
            raise OSError("body")
    with pytest.raises(BaseExceptionGroup, match=r"^errors of the") as caught:  # noqa: PT012 - it is left
        async with emitter:
            emitter.emit_soon("b")
            await anyio.sleep(1)
            raise OSError("body")
    assert caught.value.split(anyio.get_cancelled_exc_class())[0] is None
    assert caught.value.split(KeyError)[0] is not None
    with anyio.move_on_after(1) as scope:
        async with emitter:
            emitter.emit_soon("a")
    assert scope.cancelled_caught


async def test_delivery_that_is_thrown_away_is_closed() -> None:
    """As with an event loop that is not run to its end."""
    emitter = EventEmitter()
    async with emitter:
        call = cast("Any", emitter._rules.home)._work()
        call.send(None)
        call.close()


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
            emitter.emit_soon("a")
            await anyio.sleep(1)
            raise OSError("body")
    assert anyio.current_time() == 6


async def test_each_delivery_begins_in_the_blocks_context() -> None:
    """What the handlers of one event set is nothing to the next, waiting behind it or not."""
    user = contextvars.ContextVar("user", default="nobody")
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
        emitter.emit_soon("login", "ada")
        emitter.emit_soon("login", "bob")
        emitter.emit_soon("fail")
        await anyio.sleep(2)
        emitter.emit_soon("login", "cyd")
    assert seen == ["nobody", "ada", "nobody", "bob", "nobody", "nobody", "cyd"]


async def test_block_is_left_in_the_task_that_entered_it() -> None:
    """Elsewhere it is refused before anything is touched; so is leaving what was not entered."""
    emitter = EventEmitter()
    with pytest.raises(RuntimeError, match=r"^<EventEmitter: 0 handlers> was not entered"):
        await emitter.__aexit__(None, None, None)

    async def leave() -> None:
        with pytest.raises(RuntimeError, match=r"^<EventEmitter: 0 handlers> was entered in anoth"):
            await emitter.__aexit__(None, None, None)

    async with emitter:
        async with anyio.create_task_group() as group:
            group.start_soon(leave)
        emitter.emit_soon("a")
    assert emitter.statistics().emitted == 1


@pytest.mark.parametrize(
    "what", ["the block", "the block at its end", "a delivery", "the last delivery", "a batch"]
)
def test_tasks_that_somebody_else_cancels_are_missed(what: str) -> None:
    """As by "cancel all tasks": the block says so, instead of ending as if all were done."""

    async def main() -> None:
        emitter = EventEmitter()
        log: list[str] = []

        async def handle(_: Event[Any]) -> None:
            await anyio.sleep(1)
            log.append("handled")

        emitter.on("a", handle)
        emitter.on("a", handle)
        mine = asyncio.all_tasks()

        def cancel_the_others() -> None:
            for task in asyncio.all_tasks() - mine:
                task.cancel()

        with pytest.raises(StrayCancellationError, match=r"^tasks of <EventEmitter: 2 handlers> w"):  # noqa: PT012 - it is left
            async with emitter:
                if not what.startswith("the block"):
                    mine.update(asyncio.all_tasks())
                if what.endswith("delivery"):
                    emitter.emit_soon("a")
                    cancel_the_others()
                    if what == "the last delivery":
                        return
                elif what == "a batch":
                    asyncio.get_running_loop().call_soon(cancel_the_others)
                    await emitter.emit("a")
                else:
                    cancel_the_others()
                    if what == "the block at its end":
                        with suppress(asyncio.CancelledError):
                            await anyio.sleep(10)
                        return
                await anyio.sleep(10)
                log.append("the body went on")
        assert log == []

    run(main, backend="asyncio")
