"""The emitter's block under many schedules: events are delivered, or dropped and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from mtaio.exceptions import EventOverflowError
from tests.explored.emitter_stage import Stage
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from mtaio.events import Event
    from mtaio.testing import Victim


@explored
async def test_leaving_drains_or_drops(victim: Victim) -> None:
    """In order; what was not delivered is counted when the block is cancelled."""
    stage = Stage()
    stage.emitter.on("a", stage.handler("x", 1))
    took = 0

    async def block() -> None:
        nonlocal took
        async with stage.emitter:
            for number in range(3):
                stage.emitter.emit_nowait("a", number)
                took += 1
            await checkpoint()

    await victim(block)
    started = [data for _, data in stage.order]
    assert started == list(range(len(started)))
    statistics = stage.emitter.statistics()
    assert statistics.emitted + statistics.dropped == took
    assert victim.cancelled or (started == [0, 1, 2] and statistics.dropped == 0)
    stage.clear()


@explored
async def test_emit_nowait_full(victim: Victim) -> None:
    """Refused events were never there; those taken come in order."""
    stage = Stage(max_pending=2)
    stage.emitter.on("a", stage.handler("x", 1))
    took: list[int] = []

    async def put() -> None:
        for number in range(4):
            try:
                stage.emitter.emit_nowait("a", number)
            except EventOverflowError:
                await checkpoint()
            else:
                took.append(number)
            assert stage.emitter.statistics().pending <= 3  # one of them is being delivered
            await checkpoint()

    async def putter() -> None:
        await victim(put)

    async with stage.emitter:
        await together(putter=putter, other=checkpoint)
    assert [data for _, data in stage.order] == took
    assert sum(stage.ended.values()) == len(took)
    stage.clear()


@explored
async def test_failing_delivery_ends_the_block(victim: Victim) -> None:
    """Its error is raised by the block, unless that was cancelled before."""
    stage = Stage()
    error = ValueError("bad")
    raised: list[BaseException] = []

    @stage.emitter.on("a")
    async def fail(event: Event[Any]) -> None:
        await checkpoint()
        if event.data == 1:
            raise error

    async def block() -> None:
        try:
            async with stage.emitter:
                for number in range(3):
                    stage.emitter.emit_nowait("a", number)
                await checkpoint()
                await checkpoint()
        except ExceptionGroup as group:
            raised.extend(group.exceptions)

    await victim(block)
    assert raised in ([], [error])
    assert victim.fired or raised
    statistics = stage.emitter.statistics()
    assert statistics.failed == len(raised) or victim.fired
    assert statistics.emitted + statistics.dropped in {0, 3} or victim.fired
    stage.clear()


@explored
async def test_emitter_is_entered_again(victim: Victim) -> None:
    """However the block ended, the emitter can be entered and used again."""
    stage = Stage()
    for name in ("x", "y"):
        stage.emitter.on("a", stage.handler(name, 1))

    async def block() -> None:
        async with stage.emitter:
            await stage.emit(1)

    await victim(block)
    with anyio.CancelScope():
        async with stage.emitter:
            await stage.emit(2)
    assert stage.ended["x", 2] == stage.ended["y", 2] == 1
    stage.clear()
