"""Streams: order, bounds, the four overflow policies, and their end."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread

from mtaio.events import Event, EventEmitter, EventKey, EventPriority
from mtaio.exceptions import EventOverflowError
from mtaio.testing import (
    Schedule,
    assert_checkpoints,
    assert_no_checkpoints,
    assert_quiescent,
    run,
    settle,
)
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from mtaio.events import EventStream


async def take(stream: EventStream[Any], count: int) -> list[Any]:
    """Take so many events, and return their data."""
    return [(await anext(stream)).data for _ in range(count)]


async def test_events_come_in_order() -> None:
    """Those emitted inside the block, and neither before nor after."""
    emitter = EventEmitter()
    stream = emitter.stream("a", "b.*")
    await emitter.emit("a", 0)
    async with stream as events:
        assert events is stream
        for number, name in enumerate(("a", "b.c", "b", "a"), 1):
            await emitter.emit(name, number)
        assert events.pending == 3
        assert await take(events, 3) == [1, 2, 4]
        await emitter.emit("a", 5)
    await emitter.emit("a", 6)
    assert stream.pending == 0
    assert_quiescent(emitter)
    assert emitter.statistics().streams == 0


async def test_stream_without_a_limit_keeps_all() -> None:
    """With None no emit waits, whatever the policy."""
    emitter = EventEmitter()
    async with emitter.stream("a", max_pending=None, overflow="raise") as events:
        for number in range(1000):
            await emitter.emit("a", number)
        assert repr(events) == "<EventStream of 'a': 1000 kept>"
        assert (events.pending, events.dropped) == (1000, 0)
        assert await take(events, 1000) == [*range(1000)]


async def test_aclosing_ends_the_iteration() -> None:
    """What is kept is yielded first, and closing again changes nothing."""
    emitter = EventEmitter()
    async with emitter.stream("a") as events:
        async with aclosing(events):
            await emitter.emit("a", 1)
        await emitter.emit("a", 2)
        assert [event.data async for event in events] == [1]
        with assert_no_checkpoints():
            await events.aclose()


async def test_overlapping_patterns_deliver_once() -> None:
    """An event that several of the names match is one event."""
    emitter = EventEmitter()
    async with emitter.stream("*", "a.*", "a.b", "a.b", EventKey[int]("a.b")) as events:
        await emitter.emit("a.b", 1)
        await emitter.emit("a.c", 2)
        await emitter.emit("b", 3)
        assert events.pending == 3
        assert await take(events, 3) == [1, 2, 3]


async def test_consumer_is_woken() -> None:
    """It waits while there is nothing; several tasks may share a stream."""
    emitter = EventEmitter()
    log: list[tuple[float, str, int]] = []

    async def consume(name: str) -> None:
        async for event in events:
            now = anyio.current_time()
            log.append((now, name, event.data))

    async with emitter.stream("a") as events, anyio.create_task_group() as group:
        group.start_soon(consume, "x")
        await settle()
        group.start_soon(consume, "y")
        await settle()
        for number in range(3):
            await anyio.sleep(1)
            await emitter.emit("a", number)
        await settle()
        await events.aclose()
    assert log == [(1, "x", 0), (2, "y", 1), (3, "x", 2)]


async def test_blocked_event_that_gets_space_wakes_another_consumer() -> None:
    """No consumer sleeps while events wait."""
    emitter = EventEmitter()
    log: list[str] = []

    async def worker(name: str, most: int) -> None:
        for _ in range(most):
            event = await anext(events)
            log.append(f"{anyio.current_time():g} {name} {event.data}")
            await anyio.sleep(1)

    async with (
        emitter.stream("job", max_pending=1) as events,
        anyio.create_task_group() as group,
    ):
        group.start_soon(worker, "first", 2)
        await settle()
        group.start_soon(worker, "second", 2)
        await settle()
        for number in range(4):  # one is kept, and three wait for space
            group.start_soon(emitter.emit, "job", number)
    assert sorted(each.rpartition(" ")[0] for each in log) == [
        "0 first",
        "0 second",
        "1 first",
        "1 second",
    ]


async def test_taking_is_a_checkpoint_now_and_then() -> None:
    """When there is nothing, and for one ready event in 64."""
    emitter = EventEmitter()
    async with emitter.stream("a", max_pending=1000) as events:
        for number in range(200):
            await emitter.emit("a", number)
        for number in range(1, 201):
            if number % 64:
                with assert_no_checkpoints():
                    await anext(events)
            else:
                with assert_checkpoints():
                    await anext(events)


async def test_cancelled_consumer_takes_nothing() -> None:
    """While it waits, and at the checkpoint for a ready event."""
    emitter = EventEmitter()
    async with emitter.stream("a") as events:
        with anyio.move_on_after(1) as scope:
            await anext(events)
        assert scope.cancelled_caught
        for number in range(70):
            await emitter.emit("a", number)
        assert await take(events, 63) == list(range(63))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(events)
        assert scope.cancelled_caught
        assert await take(events, 1) == [63]


# ---- overflow ------------------------------------------------------------------------------------


async def test_block_makes_the_emit_wait_for_space() -> None:
    """Events get in in the order of their emits; nothing is dropped."""
    emitter = EventEmitter()
    done: list[tuple[float, int]] = []

    async def emit(number: int) -> None:
        await emitter.emit("a", number)
        done.append((anyio.current_time(), number))

    async with emitter.stream("a", max_pending=2) as events, anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(emit, number)
            await settle()
        assert done == [(0, 0), (0, 1)]
        assert emitter.statistics().waiting == 3
        assert emitter.statistics().handled == 2
        taken = []
        for _ in range(5):
            await anyio.sleep(1)
            taken += await take(events, 1)
        await settle()
        assert taken == [0, 1, 2, 3, 4]
        assert events.dropped == 0
    assert done == [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4)]
    assert emitter.statistics().handled == 5
    assert_quiescent(emitter)


async def test_blocked_emit_that_is_cancelled_leaves_no_trace() -> None:
    """Its event never comes, and those after it move up."""
    emitter = EventEmitter()
    async with emitter.stream("a", max_pending=1) as events, anyio.create_task_group() as group:
        await emitter.emit("a", 0)
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                await settle()
                group.start_soon(emitter.emit, "a", 2)
                await settle()
                scope.cancel()

            group.start_soon(cancel)
            await emitter.emit("a", 1)
        assert scope.cancelled_caught
        assert emitter.statistics().waiting == 1
        assert await take(events, 2) == [0, 2]
    assert emitter.statistics().handled == 2
    assert_quiescent(emitter)


async def test_full_streams_do_not_wait_for_each_other() -> None:
    """An emit waits for space in all full streams of a tier at once."""
    emitter = EventEmitter()
    async with (
        emitter.stream("a", max_pending=1) as first,
        emitter.stream("a", max_pending=1) as second,
        anyio.create_task_group() as group,
    ):
        await emitter.emit("a", 0)
        group.start_soon(emitter.emit, "a", 1)
        await settle()
        assert emitter.statistics().waiting == 1
        assert await take(second, 2) == [0, 1]
        assert emitter.statistics().waiting == 1
        assert await take(first, 2) == [0, 1]
        await settle()
        assert emitter.statistics().waiting == 0


async def test_stream_closed_while_emits_wait_for_it() -> None:
    """They go on as if it were not there; what is kept can still be taken."""
    emitter = EventEmitter()
    async with emitter.stream("a", max_pending=1) as events, anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(emitter.emit, "a", number)
            await settle()
        assert emitter.statistics().waiting == 2
        await events.aclose()
        await events.aclose()
        await settle()
        assert emitter.statistics().waiting == 0
        assert [event.data async for event in events] == [0]
    assert events.dropped == 0
    assert emitter.statistics().handled == 1


async def test_stream_closed_before_its_block() -> None:
    """It does not listen, and never will."""
    emitter = EventEmitter()
    async with aclosing(emitter.stream("a")) as events:
        pass
    with pytest.raises(RuntimeError, match=r"^<EventStream of 'a': .* was entered before, .* Call"):
        await events.__aenter__()
    with pytest.raises(RuntimeError, match=r"^this stream was left\."):
        await anext(events)
    assert emitter.statistics().streams == 0


async def test_stream_left_while_emits_wait_for_it() -> None:
    """Leaving the block releases them."""
    emitter = EventEmitter()
    async with anyio.create_task_group() as group, emitter.stream("a", max_pending=1):
        await emitter.emit("a", 0)
        group.start_soon(emitter.emit, "a", 1)
        await settle()
        assert emitter.statistics().waiting == 1
    assert_quiescent(emitter)


async def test_full_stream_among_handlers() -> None:
    """The handlers of its tier run; only lower tiers wait."""
    emitter = EventEmitter()
    log: list[str] = []
    async with emitter.stream("a", max_pending=1) as events, anyio.create_task_group() as group:
        emitter.on("a", lambda event: log.append(f"same {event.data}"))
        emitter.on("a", lambda event: log.append(f"lower {event.data}"), priority=-1)
        await emitter.emit("a", 0)
        group.start_soon(emitter.emit, "a", 1)
        await settle()
        assert log == ["same 0", "lower 0", "same 1"]
        assert await take(events, 1) == [0]
        await settle()
    assert log[3:] == ["lower 1"]


async def test_emit_cancelled_elsewhere_withdraws_from_a_full_stream() -> None:
    """It waited for space while a handler of the same tier was running."""
    emitter = EventEmitter()

    async def slow(event: Event[int]) -> None:
        await anyio.sleep(event.data)

    async with emitter.stream("a", max_pending=1) as events:
        emitter.on("a", slow)
        await emitter.emit("a", 0)
        with anyio.move_on_after(1):
            await emitter.emit("a", 100)
        assert await take(events, 1) == [0]
        assert events.pending == 0
        with anyio.move_on_after(1):
            await emitter.emit("a", 100)
        assert await take(events, 1) == [100]  # there was space for it
    assert emitter.statistics().handled == 3


@pytest.mark.parametrize("entered_first", [True, False])
async def test_drop_oldest(entered_first: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """The newest are kept; each event that made space is counted, under its own name."""
    emitter = EventEmitter()
    if not entered_first:
        emitter.on("*", lambda _: None)
    async with emitter.stream("a", "b", max_pending=2, overflow="drop_oldest") as events:
        for number, name in enumerate(("a", "a", "b", "b", "b")):
            await emitter.emit(name, number)
        assert events.dropped == 3
        assert await take(events, 2) == [3, 4]
    names = emitter.statistics().names
    assert (names["a"].dropped, names["b"].dropped) == (2, 1)


async def test_drop_newest() -> None:
    """The oldest are kept; each event that found no space is counted."""
    emitter = EventEmitter()
    async with emitter.stream("a", "b", max_pending=2, overflow="drop_newest") as events:
        for number, name in enumerate(("a", "b", "b", "b", "a")):
            await emitter.emit(name, number)
        assert events.dropped == 3
        assert await take(events, 2) == [0, 1]
    statistics = emitter.statistics()
    assert (statistics.names["a"].dropped, statistics.names["b"].dropped) == (1, 2)
    assert (statistics.handled, statistics.failed) == (2, 0)


@pytest.mark.parametrize("alone", [True, False])
async def test_raise(alone: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """A full stream fails as a handler does, and counts the event that it did not keep."""
    emitter = EventEmitter(name="bus")
    log: list[object] = []
    async with emitter.stream("a", max_pending=2, overflow="raise") as events:
        if not alone:
            emitter.on("a", lambda event: log.append(event.data))
        await emitter.emit("a", 0)
        await emitter.emit("a", 1)
        with pytest.raises(ExceptionGroup, match=r"^handlers of 'a' failed") as caught:
            await emitter.emit("a", 2)
        (error,) = caught.value.exceptions
        assert isinstance(error, EventOverflowError)
        assert isinstance(error, anyio.WouldBlock)
        assert str(error).startswith("<EventStream of 'a': 2 of 2 kept> is full, and has overflow=")
        assert error.name == "bus"
        assert await take(events, 2) == [0, 1]
        assert events.dropped == 1
    assert log == ([] if alone else [0, 1, 2])
    assert (emitter.statistics().failed, emitter.statistics().dropped) == (1, 1)


async def test_on_error_gets_the_stream() -> None:
    """As what has failed."""
    seen: list[object] = []
    emitter = EventEmitter(on_error=lambda _error, _event, handler: seen.append(handler))
    async with emitter.stream("a", max_pending=1, overflow="raise") as events:
        await emitter.emit("a")
        await emitter.emit("a")
    assert seen == [events]


async def test_events_are_not_lost_between_awaits() -> None:
    """Those that come while the consumer is busy are kept (node#32431)."""
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
    """Without a consumer no more than the buffer is kept (emittery#40, node#52078)."""
    emitter = EventEmitter()

    class Payload:
        """Can be referred to weakly."""

    alive: weakref.WeakSet[Payload] = weakref.WeakSet()
    async with (
        emitter.stream("a", max_pending=5, overflow="drop_oldest") as oldest,
        emitter.stream("a", max_pending=5, overflow="drop_newest") as newest,
    ):
        for _ in range(1000):
            payload = Payload()
            alive.add(payload)
            await emitter.emit("a", payload)
        del payload
        gc.collect()
        assert len(alive) == 10
        assert oldest.dropped == newest.dropped == 995


# ---- its place among other listeners -------------------------------------------------------------


async def test_priority_of_a_stream() -> None:
    """It takes the event in its tier, and stop() keeps it from lower ones."""
    emitter = EventEmitter()
    emitter.on("a", Event.stop, priority=1)
    async with (
        emitter.stream("a") as normal,
        emitter.stream("a", priority=EventPriority.HIGH) as high,
    ):
        await emitter.emit("a", 1)
        assert (normal.pending, high.pending) == (0, 1)


async def test_emit_in_progress_skips_a_stream_that_was_closed() -> None:
    """As it skips a handler that was removed."""
    emitter = EventEmitter()
    async with emitter.stream("a") as events:
        emitter.on("a", lambda _: events.aclose(), priority=1)
        await emitter.emit("a", 1)
        assert events.pending == 0


# ---- misuse --------------------------------------------------------------------------------------


def test_stream_leaves_no_reference_cycle(backend: str) -> None:
    """After leaving it is freed by counting references alone."""

    async def main() -> None:
        emitter = EventEmitter()
        async with emitter.stream("a", max_pending=1) as events:
            await emitter.emit("a")
            await anext(events)
            left = weakref.ref(events)
        del events
        assert left() is None

    gc.disable()
    try:
        run(main, backend=backend)
    finally:
        gc.enable()


async def test_stream_must_be_entered() -> None:
    """It is read inside its block."""
    emitter = EventEmitter()
    stream = emitter.stream("a")
    with pytest.raises(RuntimeError, match=r"^this stream was not entered\. Write: async with emi"):
        await anext(stream)
    async with stream:
        pass
    with pytest.raises(RuntimeError, match=r"^this stream was left\. Write: async with"):
        await anext(stream)


async def test_consumer_in_another_task_ends_when_the_block_is_left() -> None:
    """It was waiting for an event that will not come."""
    emitter = EventEmitter()
    ended: list[str] = []

    async def consume(events: EventStream[Any]) -> None:
        async for _ in events:
            """Nothing comes."""
        ended.append("ended")

    async with anyio.create_task_group() as group, emitter.stream("a") as events:
        group.start_soon(consume, events)
        await settle()
    assert ended == ["ended"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_consumer_at_a_checkpoint_ends_when_the_block_is_left(backend: str) -> None:
    """It started to take an event before that: there is no error about a stream that was left."""
    outcomes: set[str] = set()

    async def consume(events: EventStream[Any], reached: anyio.Event) -> None:
        await take(events, 63)
        reached.set()
        try:
            await anext(events)
        except StopAsyncIteration:
            outcomes.add("ended")
        else:
            outcomes.add("was faster")

    async def main() -> None:
        emitter = EventEmitter()
        reached = anyio.Event()
        async with anyio.create_task_group() as group, emitter.stream("a") as events:
            for number in range(100):
                await emitter.emit("a", number)
            group.start_soon(consume, events, reached)
            await reached.wait()

    for seed in range(16):
        run(main, backend=backend, schedule=Schedule(seed=seed))
    assert outcomes == {"ended", "was faster"}


def test_bad_streams() -> None:
    """Each mistake is named where the stream is made."""
    emitter: Any = EventEmitter()
    with pytest.raises(ValueError, match=r"^stream\(\) was given no name, so it would yield "):
        emitter.stream()
    with pytest.raises(ValueError, match=r"^name='' is empty"):
        emitter.stream("a", "")
    with pytest.raises(TypeError, match=r"^name=5 is an int"):
        emitter.stream(5)
    with pytest.raises(
        ValueError, match=r"^overflow='drop' is unknown\. Pass one of 'block', 'dro"
    ):
        emitter.stream("a", overflow="drop")
    with pytest.raises(
        ValueError, match=r"^max_pending=0 is less than 1\. Pass how many events to"
    ):
        emitter.stream("a", max_pending=0)
    with pytest.raises(TypeError, match=r"^max_pending=inf is a float, not an int"):
        emitter.stream("a", max_pending=float("inf"))
    with pytest.raises(TypeError, match=r"^priority='high' is a str, not an int"):
        emitter.stream("a", priority="high")
    assert repr(emitter.stream("a", "b.*")) == "<EventStream of 'a', 'b.*': 0 of 100 kept>"


# ---- loops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["block", "drop_newest"])
def test_stream_of_another_running_loop_is_named(overflow: Any) -> None:
    """Its consumer cannot be woken from here: the emit fails, and says what to do."""
    emitter = EventEmitter()
    ready, done = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    async def consume() -> None:
        async with (
            emitter.stream("a", max_pending=1, overflow=overflow) as events,
            anyio.create_task_group() as group,
        ):
            group.start_soon(anext, events)
            await anyio.wait_all_tasks_blocked()
            ready.set()
            await to_thread.run_sync(done.wait, 10)
            group.cancel_scope.cancel()

    async def emit() -> None:
        try:
            await emitter.emit("a", 1)
        except ExceptionGroup as group:
            errors.extend(group.exceptions)

    thread = threading.Thread(target=anyio.run, args=(consume,))
    thread.start()
    assert ready.wait(10)
    anyio.run(emit)
    done.set()
    thread.join(10)
    (error,) = errors
    assert isinstance(error, RuntimeError)
    assert str(error).startswith("<EventStream of 'a': 0 of 1 kept> is in use by tasks of another")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("over", [True, False])
def test_consumer_in_another_loop_is_refused(backend: str, over: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """It would sleep for ever, whether the first loop is over or not."""
    emitter = EventEmitter()
    events = emitter.stream("a")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(events.__aenter__())
    if over:
        loop.close()

    async def consume() -> None:
        with pytest.raises(RuntimeError, match=r"^<EventStream of 'a': 0 of 100 kept> was entered"):
            await anext(events)

    run(consume, backend=backend)
    if not over:
        with pytest.raises(RuntimeError, match=r"^<EventStream of .* and aclose\(\) works"):
            run(events.aclose, backend=backend)
        assert emitter.statistics().streams == 1
        loop.close()
    run(events.aclose, backend=backend)
    assert emitter.statistics().streams == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("full", [True, False])
def test_stream_of_a_loop_that_is_over_is_forgotten(backend: str, full: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """It was never left: emits would wait for it for ever."""
    emitter = EventEmitter()

    async def abandon() -> None:
        events = emitter.stream("a", max_pending=1)
        await events.__aenter__()
        if full:
            await emitter.emit("a", 1)
        else:
            await anext(events)

    loop = asyncio.new_event_loop()
    task = loop.create_task(abandon())
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0))
    assert emitter.statistics().streams == 1

    task._log_destroy_pending = False  # type: ignore[attr-defined] # it is abandoned on purpose
    loop.close()

    async def emit() -> None:
        await emitter.emit("a", 2)

    run(emit, backend=backend)
    assert emitter.statistics().streams == 0
    assert_quiescent(emitter)
