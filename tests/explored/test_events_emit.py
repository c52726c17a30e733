"""`emit` under many schedules: each handler once, and none left running, also if cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from tests.explored.emitter_stage import Stage
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from mtaio.events import Event
    from mtaio.testing import Victim


@explored
async def test_cancelled_emit(victim: Victim) -> None:
    """Its handlers end with it, and lower tiers do not start; another emit is not affected."""
    stage = Stage()
    for name, steps in (("x", 2), ("y", 1)):
        stage.emitter.on("a", stage.handler(name, steps))
    stage.emitter.on("a", stage.plain("lower"), priority=-1)

    async def doomed() -> None:
        await victim(stage.emit, "doomed")

    async def other() -> None:
        await stage.emit("other")

    await together(doomed=doomed, other=other)
    assert stage.ended["x", "other"] == stage.ended["y", "other"] == 1
    assert stage.ended["lower", "other"] == 1
    through = stage.ended["x", "doomed"] + stage.ended["y", "doomed"] == 2
    assert stage.ended["lower", "doomed"] <= through
    assert victim.fired or stage.ended["lower", "doomed"] == 1
    stage.clear()


@explored
async def test_deadline_at_the_moment_when_handlers_end() -> None:
    """An emit that returns has seen all of them end; otherwise it is cancelled, and no more."""
    stage = Stage()
    ended: list[int] = []

    async def sleeps(_: Event[Any]) -> None:
        await anyio.sleep(1)
        ended.append(1)

    for _ in range(3):
        stage.emitter.on("a", sleeps)

    async def emit() -> None:
        returned = False
        with anyio.move_on_after(1) as scope:
            await stage.emit(1)
            returned = True
        assert returned or scope.cancelled_caught
        assert len(ended) == 3 or not returned

    async def other() -> None:
        await anyio.sleep(1)
        await checkpoint()

    await together(emit=emit, other=other)
    assert stage.emitter.statistics().failed == 0
    stage.clear()


@explored
async def test_handlers_that_remove_each_other(victim: Victim) -> None:
    """One that was removed before it is called is not called, and no emit breaks."""
    stage = Stage()
    emitter = stage.emitter
    x, z = stage.handler("x"), stage.handler("z")
    removed: list[Any] = []

    @emitter.on("a", priority=1)
    async def remover(event: Event[Any]) -> None:
        emitter.off("a", remover)
        await checkpoint()
        emitter.off("a", z)
        removed.append(event.data)

    emitter.on("a", x)
    emitter.on("a", z)

    async def first() -> None:
        await victim(stage.emit, 1)

    async def second() -> None:
        await stage.emit(2)

    await together(first=first, second=second)
    for data in removed:
        assert stage.started["z", data] == 0
    assert stage.started["x", 2] == 1
    assert emitter.listener_count("a") == 2 - len(removed)
    assert len(removed) <= 1
    stage.clear()


@explored
async def test_once_under_concurrent_emits(victim: Victim) -> None:
    """One call in all, by the first to reach it, also if that is cancelled in it."""
    stage = Stage()
    stage.emitter.on("a", stage.handler("before"), priority=1)
    stage.emitter.once("a", stage.handler("once"))

    async def first() -> None:
        await victim(stage.emit, 1)

    async def second() -> None:
        await stage.emit(2)

    async def third() -> None:
        await stage.emit(3)

    await together(first=first, second=second, third=third)
    assert sum(stage.started["once", number] for number in (1, 2, 3)) == 1
    assert stage.emitter.listener_count("a") == 1
    stage.clear()


@explored
async def test_reentrant_emit(victim: Victim) -> None:
    """An emit inside a handler is over when the handler goes on, and ends with the outer emit."""
    stage = Stage()
    emitter = stage.emitter

    @emitter.on("outer")
    async def outer(event: Event[Any]) -> None:
        await stage.emit(2, "inner")
        stage.order.append(("inner returned", event.data))

    emitter.on("outer", stage.handler("concurrent"))
    emitter.on("inner", stage.handler("x"))
    emitter.on("inner", stage.handler("y"))

    async def run() -> None:
        await emitter.emit("outer", 1)

    await victim(run)
    assert stage.running == 0
    if ("inner returned", 1) in stage.order:
        assert stage.ended["x", 2] == stage.ended["y", 2] == 1
    assert victim.cancelled or len(stage.order) == 4
    stage.clear()


@explored
async def test_errors_and_cancellation(victim: Victim) -> None:
    """A failing handler stops no other; its error is raised, or logged if the emit is cancelled."""
    stage = Stage()
    error = ValueError("bad")

    @stage.emitter.on("a")
    async def fail(_: Event[Any]) -> None:
        await checkpoint()
        raise error

    stage.emitter.on("a", stage.handler("x", 2))
    raised: list[BaseException] = []

    async def run() -> None:
        try:
            await stage.emit(1)
        except ExceptionGroup as group:
            raised.extend(group.exceptions)

    await victim(run)
    assert stage.started["x", 1] <= 1
    if raised:
        assert raised == [error]
        assert stage.ended["x", 1] == 1
    assert victim.fired or raised
    stage.clear()


@explored
async def test_wait_for(victim: Victim) -> None:
    """It returns an event that came while it waited, or is cancelled; no waiter stays behind."""
    stage = Stage()
    got: list[Any] = []
    waits = anyio.Event()

    async def wait() -> None:
        waits.set()
        event = await stage.emitter.wait_for("a", lambda event: event.data > 0)
        got.append(event.data)

    async def waiter() -> None:
        await victim(wait)
        waits.set()

    async def producer() -> None:
        await waits.wait()
        for number in range(3):
            await stage.emit(number)
            await checkpoint()

    await together(waiter=waiter, producer=producer)
    assert got in ([], [1])
    assert victim.fired or got == [1]
    stage.clear()
