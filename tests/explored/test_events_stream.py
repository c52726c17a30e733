"""Streams under many schedules: in order, each once, and no emit that waits for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from mtaio.exceptions import EventOverflowError
from tests.explored.emitter_stage import Stage
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from mtaio.events import EventStream
    from mtaio.testing import Simulation, Victim


async def take(events: EventStream[Any], into: list[Any], most: int = 99) -> None:
    """Take up to so many events."""
    async for event in events:
        into.append(event.data)
        if len(into) == most:
            return


@explored
async def test_blocked_emits(sim: Simulation, victim: Victim) -> None:
    """A cancelled one leaves no trace; the others get in, in their order."""
    stage = Stage()
    taken: list[int] = []
    sent: list[int] = []
    async with stage.emitter.stream("a", max_pending=1) as events:
        sim.always(lambda: events.pending <= 1)

        async def send(*numbers: int) -> None:
            for number in numbers:
                await stage.emit(number)
                sent.append(number)

        async def first() -> None:
            await victim(send, 1, 2)

        async def second() -> None:
            await send(11, 12)

        async def both() -> None:
            await together(first=first, second=second)
            await events.aclose()

        async def consumer() -> None:
            await take(events, taken)

        await together(both=both, consumer=consumer)
        assert events.dropped == 0
    assert [number for number in taken if number > 10] == [11, 12]
    mine = [number for number in taken if number < 10]
    assert mine == [1, 2][: len(mine)]
    assert {number for number in sent if number < 10} <= set(mine)
    assert victim.fired or len(taken) == 4
    stage.clear()


@explored
async def test_consumer_that_is_cancelled(victim: Victim) -> None:
    """What it had not taken goes to the next; nothing is lost and nothing comes twice."""
    stage = Stage()
    first: list[int] = []
    second: list[int] = []
    async with stage.emitter.stream("a", max_pending=2) as events:

        async def produce() -> None:
            for number in range(4):
                await stage.emit(number)
            await anyio.sleep(1)
            assert events.pending == 0  # a consumer was woken for each
            await events.aclose()

        async def one() -> None:
            await victim(take, events, first, 2)

        async def other() -> None:
            await take(events, second)

        await together(produce=produce, one=one, other=other)
        assert sorted(first + second) == [0, 1, 2, 3]
        assert first == sorted(first)
        assert second == sorted(second)
    stage.clear()


@explored
async def test_consumers_of_a_full_stream(victim: Victim) -> None:
    """One leaves after two: the other gets the rest, and no emit waits for ever."""
    stage = Stage()
    first: list[int] = []
    second: list[int] = []
    async with stage.emitter.stream("a", max_pending=1) as events:

        async def send(*numbers: int) -> None:
            for number in numbers:
                await stage.emit(number)

        async def one() -> None:
            await victim(take, events, first, 2)

        async def other() -> None:
            await take(events, second)

        async def produce() -> None:
            await together(left=lambda: send(0, 1, 2), right=lambda: send(10, 11, 12))
            await anyio.sleep(1)
            assert events.pending == 0
            await events.aclose()

        await together(one=one, other=other, produce=produce)
    assert sorted(first + second) == [0, 1, 2, 10, 11, 12]
    stage.clear()


@explored
async def test_stream_closed_while_an_emit_blocks_on_it(victim: Victim) -> None:
    """Closed, left or its consumer cancelled: the emit goes on, and so do its other handlers."""
    stage = Stage()
    stage.emitter.on("a", stage.handler("concurrent"))
    stage.emitter.on("a", stage.plain("lower"), priority=-1)
    entered = anyio.Event()

    async def consume() -> None:
        async with stage.emitter.stream("a", max_pending=1) as events:
            entered.set()
            await take(events, [], 1)
            await checkpoint()

    async def consumer() -> None:
        await victim(consume)
        entered.set()

    async def producer() -> None:
        await entered.wait()
        for number in range(3):
            await stage.emit(number)

    await together(consumer=consumer, producer=producer)
    for number in range(3):
        assert stage.ended["concurrent", number] == stage.ended["lower", number] == 1
    stage.clear()


@explored
async def test_two_full_streams(victim: Victim) -> None:
    """One consumer reads both alternately: an emit that waits for one does not block the other."""
    stage = Stage()
    seen: list[tuple[str, int]] = []
    async with (
        stage.emitter.stream("a", max_pending=1) as left,
        stage.emitter.stream("a", max_pending=1) as right,
    ):

        async def send() -> None:
            for number in range(3):
                await stage.emit(number)

        async def producer() -> None:
            await victim(send)
            await left.aclose()
            await right.aclose()

        async def consumer() -> None:
            async for event in right:  # the one registered later, first
                seen.append(("right", event.data))
                async for other in left:
                    seen.append(("left", other.data))
                    break

        await together(producer=producer, consumer=consumer)
    assert [data for side, data in seen if side == "left"] == list(range(len(seen) // 2))
    assert victim.fired or len(seen) == 6
    stage.clear()


@explored
async def test_dropping(sim: Simulation, victim: Victim) -> None:
    """Each event is taken, dropped or left; the counts are exact in each run."""
    for overflow in ("drop_oldest", "drop_newest", "raise"):
        await drop(sim, victim, overflow)


async def drop(sim: Simulation, victim: Victim, overflow: Any) -> None:
    """Let two tasks emit into a small stream of this kind."""
    stage = Stage()
    taken: list[int] = []
    emitted = refused = 0
    async with stage.emitter.stream("a", max_pending=1, overflow=overflow) as events:
        sim.always(lambda: events.pending <= 1)

        async def produce() -> None:
            nonlocal emitted, refused
            for number in range(3):
                try:
                    emitted += 1
                    await stage.emit(number)
                except* EventOverflowError:
                    refused += 1
                await checkpoint()

        async def producer() -> None:
            await produce()
            await events.aclose()

        async def consumer() -> None:
            await victim(take, events, taken)

        await together(producer=producer, consumer=consumer)
        assert len(taken) + events.dropped + events.pending == emitted == 3
        assert taken == sorted(taken)
        assert refused == (events.dropped if overflow == "raise" else 0)
        assert stage.emitter.statistics().dropped == events.dropped
    stage.clear()
