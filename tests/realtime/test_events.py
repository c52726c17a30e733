"""The emitter in real time, on every event loop, also with tasks that start eagerly."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.events import Event, EventEmitter
from mtaio.exceptions import EventOverflowError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Fatal(BaseException):
    """Is not an Exception."""


def handler(log: list[str], name: str, kind: str) -> Callable[[Event[Any]], Awaitable[None]]:
    """Return a handler of some kind, which notes its end."""

    async def handle(_: Event[Any]) -> None:
        if kind == "sleeps":
            await anyio.sleep(0.001)
        elif kind == "suspends":
            await checkpoint()
        elif kind == "fails":
            await checkpoint()
            raise ValueError(name)
        elif kind == "fatal":
            raise Fatal
        log.append(name)

    return handle


KINDS = ("quick", "suspends", "sleeps")


@pytest.mark.parametrize("entered", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", [*KINDS, "fails", "fatal"])
async def test_every_handler_ends(first: str, second: str, entered: bool) -> None:  # noqa: FBT001 - parameters of pytest's
    """Whatever kind it is and whichever comes before it; the caller gets the errors."""
    emitter = EventEmitter()
    log: list[str] = []
    for name, kind in (("x", first), ("y", second), ("z", first)):
        emitter.on("a", handler(log, name, kind))
    emitter.on("a", lambda _: log.append("lower"), priority=-1)
    async with emitter if entered else nullcontext():
        if second == "fatal":
            with pytest.raises(Fatal):
                await emitter.emit("a")
        elif second == "fails":
            with pytest.raises(ExceptionGroup):
                await emitter.emit("a")
            assert sorted(log) == ["x", "z"]
        else:
            await emitter.emit("a")
            assert sorted(log[:3]) == ["x", "y", "z"]
            assert log[3:] == ["lower"]


@pytest.mark.parametrize("entered", [False, True], ids=["outside", "inside"])
async def test_cancelled_emit_ends_its_handlers(entered: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """And waits for them."""
    emitter = EventEmitter()
    ended: list[int] = []

    async def sleep(_: Event[Any]) -> None:
        try:
            await anyio.sleep(100)
        finally:
            ended.append(1)

    for _ in range(3):
        emitter.on("a", sleep)
    async with emitter if entered else nullcontext():
        with anyio.move_on_after(0.01) as scope:
            await emitter.emit("a")
        assert scope.cancelled_caught
        assert ended == [1, 1, 1]


async def test_emit_nowait_and_streams() -> None:
    """Events come in order through a queue, a stream and a wait."""
    emitter = EventEmitter(max_pending=10)
    taken: list[int] = []

    async def consume() -> None:
        async with emitter.stream("a", max_pending=2) as events:
            ready.set()
            async for event in events:
                taken.append(event.data)
                await checkpoint()
                if event.data == 9:
                    return

    async def wait() -> None:
        assert (await emitter.wait_for("a", lambda event: event.data == 5)).data == 5

    ready = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        group.start_soon(wait)
        await ready.wait()
        async with emitter:
            for number in range(10):
                emitter.emit_nowait("a", number)
            with pytest.raises(EventOverflowError):
                emitter.emit_nowait("a", 10)
    assert taken == list(range(10))
