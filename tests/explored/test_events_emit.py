"""`emit` under every schedule: each handler once, none left behind, whoever is cancelled when."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from tests.explored.emitter_stage import Stage
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from mtaio.events import Event
    from mtaio.testing import Victim


@explored
async def test_cancelled_emit(victim: Victim) -> None:
    """Its handlers end with it, and lower tiers are not begun; another emit is not disturbed."""
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
async def test_cancelled_emit_of_an_entered_emitter(victim: Victim) -> None:
    """The same where the rest of the tier goes to tasks of the block."""
    stage = Stage()
    for name, steps in (("x", 2), ("y", 1), ("z", 0)):
        stage.emitter.on("a", stage.handler(name, steps))
    async with stage.emitter:
        await victim(stage.emit, "doomed")
        assert stage.running == 0
        assert victim.cancelled or sum(stage.ended.values()) == 3
    stage.clear()


@explored
async def test_deadline_that_ends_the_emit_and_its_handlers(victim: Victim) -> None:
    """Both at one moment, whoever comes first: the emit is cancelled, and has not failed."""
    stage = Stage()
    for _ in range(3):

        @stage.emitter.on("a")
        async def sleeps(_: Event[Any]) -> None:
            await anyio.sleep(2)

    async def run() -> None:
        with anyio.move_on_after(1) as scope:
            await stage.emit(1)
        assert scope.cancelled_caught

    async with stage.emitter:
        await victim(run)
    assert stage.emitter.statistics().failed == 0
    stage.clear()


@explored
async def test_deadline_in_the_moment_in_which_handlers_end() -> None:
    """An emit that returns has seen all of them end; else it is cancelled, and no more."""
    await end_in_one_moment(nullcontext())


@explored
async def test_deadline_in_the_moment_in_which_handlers_end_inside() -> None:
    """The same where the rest of the tier goes to tasks of the block."""
    await end_in_one_moment()


async def end_in_one_moment(block: AbstractAsyncContextManager[object] | None = None) -> None:
    """Let a deadline end an emit when its handlers end by themselves."""
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

    async with stage.emitter if block is None else block:
        await together(emit=emit, other=other)
    stage.clear()


@explored
async def test_two_emits_of_an_entered_emitter(victim: Victim) -> None:
    """Cancelling one leaves the handlers of the other alone, though they share a group."""
    stage = Stage()
    for name in ("x", "y"):
        stage.emitter.on("a", stage.handler(name, 1))

    async def doomed() -> None:
        await victim(stage.emit, "doomed")

    async def other() -> None:
        await stage.emit("other")

    async with stage.emitter:
        await together(doomed=doomed, other=other)
    assert stage.ended["x", "other"] == stage.ended["y", "other"] == 1
    assert victim.cancelled or stage.ended["x", "doomed"] == stage.ended["y", "doomed"] == 1
    stage.clear()


@explored
async def test_handlers_that_remove_each_other(victim: Victim) -> None:
    """Whoever was removed before his turn is not called, and no emit is torn by it."""
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
        assert stage.begun["z", data] == 0
    assert stage.begun["x", 2] == 1
    assert emitter.listener_count("a") == 2 - len(removed)
    assert len(removed) <= 1
    stage.clear()


@explored
async def test_once_under_concurrent_emits(victim: Victim) -> None:
    """One call in all, by whoever comes first, also if he is cancelled in it."""
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
    assert sum(stage.begun["once", number] for number in (1, 2, 3)) == 1
    assert stage.emitter.listener_count("a") == 1
    stage.clear()


@explored
async def test_reentrant_emit(victim: Victim) -> None:
    """An emit inside a handler has ended when the handler goes on, and ends with its own emit."""
    stage = Stage()
    emitter = stage.emitter

    @emitter.on("outer")
    async def outer(event: Event[Any]) -> None:
        await stage.emit(2, "inner")
        stage.order.append(("inner returned", event.data))

    emitter.on("outer", stage.handler("beside"))
    emitter.on("inner", stage.handler("x"))
    emitter.on("inner", stage.handler("y"))

    async def run() -> None:
        await emitter.emit("outer", 1)

    async with emitter:
        await victim(run)
        assert stage.running == 0
        if ("inner returned", 1) in stage.order:
            assert stage.ended["x", 2] == stage.ended["y", 2] == 1
        assert victim.cancelled or len(stage.order) == 4
    stage.clear()


@explored
async def test_errors_and_cancellation(victim: Victim) -> None:
    """A failing handler stops nobody; its error is raised, or logged if the emit is cancelled."""
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
    assert stage.begun["x", 1] <= 1
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
