"""
The emitter: what handing an event over costs, and what a slow subscriber keeps in memory.

On uvloop the rivals are faster, as tasks and futures are; ours, which avoids them, is not.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import psutil
from anyio.lowlevel import checkpoint
from blinker import Signal
from pyee import EventEmitter as PlainEmitter
from pyee.asyncio import AsyncIOEventEmitter

from benchmarks._harness import OURS, Contest, Figure
from mtaio.events import Event, EventEmitter
from mtaio.exceptions import EventOverflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mtaio.types import Overflow

    Handler = Callable[[Any], Coroutine[Any, Any, None]]

CALLS = 20_000
CROWDED_CALLS = 2_000
SUSPENDING_CALLS = 500
STREAMED = 20_000
MANY = 1_000_000
BUFFER = 100
MIB = 1024 * 1024

BARE = "await handler(event)"
PYEE = "pyee + wait_for_complete"
PYEE_SYNC = "pyee's emit"
BLINKER_SYNC = "blinker's send"
BLINKER = "blinker's send_async"
TASK_GROUP = "anyio task group per emit"
MEMORY_STREAM = "anyio memory object stream"


class Handled:
    """A handler that adds up what it gets, so that none is fast by doing nothing."""

    def __init__(self, *, suspends: bool = False) -> None:
        self.total = 0
        self.handle: Handler = self._suspending() if suspends else self._quick()

    def expect(self, total: int) -> None:
        """Raise if it got anything else."""
        expect_total(self.total, total)

    def _quick(self) -> Handler:
        async def handle(event: Any) -> None:
            self.total += event.data

        return handle

    def _suspending(self) -> Handler:
        async def handle(event: Any) -> None:
            await checkpoint()
            self.total += event.data

        return handle


def expect_total(total: int, expected: int) -> None:
    if total != expected:
        msg = f"the handlers should have got {expected} in all, not {total}"
        raise RuntimeError(msg)


async def ours(
    handlers: int, calls: int, *, suspends: bool = False, entered: bool = False
) -> float:
    handled = Handled(suspends=suspends)
    emitter = EventEmitter()
    for _ in range(handlers):
        emitter.on("event", handled.handle)

    if entered:
        async with emitter:
            taken = await emit_each(emitter, calls)
    else:
        taken = await emit_each(emitter, calls)
    handled.expect(handlers * calls)
    return taken


async def emit_each(emitter: EventEmitter, calls: int) -> float:
    started = time.thread_time()
    for _ in range(calls):
        await emitter.emit("event", 1)
    return (time.thread_time() - started) / calls * 1e6


async def bare() -> float:
    handled = Handled()
    handle = handled.handle
    event = Event("event", 1)
    started = time.thread_time()
    for _ in range(CALLS):
        await handle(event)
    taken = (time.thread_time() - started) / CALLS * 1e6
    handled.expect(CALLS)
    return taken


async def pyee(handlers: int, calls: int) -> float:
    handled = Handled()
    emitter = AsyncIOEventEmitter()
    event = Event("event", 1)
    for _ in range(handlers):
        # One function is one handler to pyee, however often it is registered.
        emitter.on("event", partial(handled.handle))
    started = time.thread_time()
    for _ in range(calls):
        emitter.emit("event", event)
        await emitter.wait_for_complete()
    taken = (time.thread_time() - started) / calls * 1e6
    handled.expect(handlers * calls)
    return taken


class Counted:
    """A plain handler that adds up what it gets."""

    def __init__(self) -> None:
        self.total = 0

    def handle(self, event: Any) -> None:
        self.total += event.data


async def sync_ours() -> float:
    counted = Counted()
    emitter = EventEmitter()
    emitter.on("event", counted.handle)
    taken = await emit_each(emitter, CALLS)
    expect_total(counted.total, CALLS)
    return taken


async def sync_pyee() -> float:
    counted = Counted()
    emitter = PlainEmitter()
    event = Event("event", 1)
    emitter.on("event", counted.handle)
    started = time.thread_time()
    for _ in range(CALLS):
        emitter.emit("event", event)
    taken = (time.thread_time() - started) / CALLS * 1e6
    expect_total(counted.total, CALLS)
    return taken


async def sync_blinker() -> float:
    counted = Counted()
    signal = Signal()
    event = Event("event", 1)
    signal.connect(counted.handle)
    started = time.thread_time()
    for _ in range(CALLS):
        signal.send(event)
    taken = (time.thread_time() - started) / CALLS * 1e6
    expect_total(counted.total, CALLS)
    return taken


async def blinker(handlers: int, calls: int) -> float:
    handled = Handled()
    signal = Signal()
    event = Event("event", 1)
    receivers = [partial(handled.handle) for _ in range(handlers)]
    for receiver in receivers:
        signal.connect(receiver)
    started = time.thread_time()
    for _ in range(calls):
        await signal.send_async(event)
    taken = (time.thread_time() - started) / calls * 1e6
    handled.expect(handlers * calls)
    return taken


async def task_group(handlers: int, calls: int) -> float:
    handled = Handled(suspends=True)
    handle = handled.handle
    event = Event("event", 1)
    started = time.thread_time()
    for _ in range(calls):
        async with anyio.create_task_group() as group:
            for _ in range(handlers):
                group.start_soon(handle, event)
    taken = (time.thread_time() - started) / calls * 1e6
    handled.expect(handlers * calls)
    return taken


async def our_stream() -> float:
    emitter = EventEmitter()
    taken = 0

    async def produce() -> None:
        for number in range(STREAMED):
            await emitter.emit("event", number)
        await events.aclose()

    async with emitter.stream("event", max_pending=BUFFER) as events:
        started = time.thread_time()
        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            async for _ in events:
                taken += 1
    expect_taken(taken)
    return (time.thread_time() - started) / STREAMED * 1e6


async def memory_stream() -> float:
    send, receive = anyio.create_memory_object_stream[Event[int]](BUFFER)
    taken = 0

    async def produce() -> None:
        async with send:
            for number in range(STREAMED):
                await send.send(Event("event", number))

    started = time.thread_time()
    async with anyio.create_task_group() as group, receive:
        group.start_soon(produce)
        async for _ in receive:
            taken += 1
    expect_taken(taken)
    return (time.thread_time() - started) / STREAMED * 1e6


def expect_taken(taken: int) -> None:
    if taken != STREAMED:
        msg = f"the consumer should have taken {STREAMED} events, not {taken}"
        raise RuntimeError(msg)


async def slow_subscriber(overflow: Overflow) -> float:
    """Return by how many MiB memory grew at most, after checking that every event is accounted."""
    process = psutil.Process()
    emitter = EventEmitter()
    before = high = process.memory_info().rss
    taken = refused = 0

    async def consume() -> None:
        nonlocal taken
        async for _ in events:
            taken += 1
            await checkpoint()

    async with emitter.stream("event", max_pending=BUFFER, overflow=overflow) as events:
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            for number in range(MANY):
                try:
                    await emitter.emit("event", number)
                except* EventOverflowError:
                    refused += 1
                if not number % 50_000:
                    high = max(high, process.memory_info().rss)
            await events.aclose()
        dropped = events.dropped
    if taken + dropped != MANY or emitter.statistics().dropped != dropped:
        msg = f"{taken} taken and {dropped} dropped are not {MANY}"
        raise RuntimeError(msg)
    if (overflow == "block") != (dropped == 0) or refused != dropped * (overflow == "raise"):
        msg = f"{overflow!r} dropped {dropped} and raised {refused} times"
        raise RuntimeError(msg)
    return (max(high, process.memory_info().rss) - before) / MIB


async def slow_block() -> float:
    return await slow_subscriber("block")


async def slow_drop_oldest() -> float:
    return await slow_subscriber("drop_oldest")


async def slow_drop_newest() -> float:
    return await slow_subscriber("drop_newest")


async def slow_raise() -> float:
    return await slow_subscriber("raise")


EVENTS = [
    Contest(
        title="emit, one async handler",
        contenders={
            OURS: partial(ours, 1, CALLS),
            BARE: bare,
            PYEE: partial(pyee, 1, CALLS // 4),
            BLINKER: partial(blinker, 1, CALLS),
        },
        targets={BARE: 6, PYEE: 0.1},
        asyncio_only=frozenset({PYEE}),
    ),
    Contest(
        title="emit, one plain handler",
        contenders={OURS: sync_ours, PYEE_SYNC: sync_pyee, BLINKER_SYNC: sync_blinker},
        loops=("asyncio", "trio"),
    ),
    Contest(
        title="emit, ten async handlers, none suspends, entered",
        contenders={
            OURS: partial(ours, 10, CROWDED_CALLS, entered=True),
            PYEE: partial(pyee, 10, CROWDED_CALLS),
        },
        targets={PYEE: {"asyncio": 0.28, "uvloop": 0.3}},
        asyncio_only=frozenset({PYEE}),
    ),
    Contest(
        title="emit, ten async handlers, none suspends, not entered",
        contenders={
            OURS: partial(ours, 10, CROWDED_CALLS),
            PYEE: partial(pyee, 10, CROWDED_CALLS),
            BLINKER: partial(blinker, 10, CROWDED_CALLS),
        },
        targets={PYEE: {"asyncio": 0.28, "uvloop": 0.3}},
        asyncio_only=frozenset({PYEE}),
    ),
    Contest(
        title="emit, ten async handlers that all suspend, entered",
        contenders={
            OURS: partial(ours, 10, SUSPENDING_CALLS, suspends=True, entered=True),
            TASK_GROUP: partial(task_group, 10, SUSPENDING_CALLS),
        },
        targets={TASK_GROUP: 1.25},
    ),
    Contest(
        title="emit, ten async handlers that all suspend, not entered",
        contenders={
            OURS: partial(ours, 10, SUSPENDING_CALLS, suspends=True),
            TASK_GROUP: partial(task_group, 10, SUSPENDING_CALLS),
        },
        targets={TASK_GROUP: 1.25},
    ),
    Contest(
        title="stream, each event from emit to consumer",
        contenders={OURS: our_stream, MEMORY_STREAM: memory_stream},
        targets={MEMORY_STREAM: {"asyncio": 0.2, "uvloop": 0.23, "trio": 0.2}},
    ),
    *(
        Figure(
            title=f"1M emits, slow subscriber, {name}: growth",
            measure=measure,
            unit="MiB",
            most=5,
            isolated=True,
            loops=("asyncio", "trio"),
        )
        for name, measure in {
            "block": slow_block,
            "drop_oldest": slow_drop_oldest,
            "drop_newest": slow_drop_newest,
            "raise": slow_raise,
        }.items()
    ),
]
