"""An emitter that calls a once-handler twice if two events come together."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import explore

Handler = Callable[[str], Awaitable[None]]


class WrongEmitter:
    """Calls each handler with the next event only."""

    def __init__(self) -> None:
        self._once: list[Handler] = []

    def once(self, handler: Handler) -> None:
        """Call a handler with the next event only."""
        self._once.append(handler)

    # --8<-- [start:wrong]
    async def emit(self, event: str) -> None:
        """Call the handlers, one after the other."""
        for handler in tuple(self._once):
            await handler(event)
            if handler in self._once:
                self._once.remove(handler)

    # --8<-- [end:wrong]


class RightEmitter(WrongEmitter):
    """Clears the list before it calls the first handler."""

    async def emit(self, event: str) -> None:
        """Call the handlers, one after the other."""
        handlers, self._once = self._once, []
        for handler in handlers:
            await handler(event)


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongEmitter, RightEmitter])
@explore()
async def test_once_is_once(kind: type[WrongEmitter]) -> None:
    emitter = kind()
    alarms: list[str] = []

    async def alarm(event: str) -> None:
        await checkpoint()
        alarms.append(event)

    async def connection(lasts: int) -> None:
        for _ in range(lasts):
            await checkpoint()
        await emitter.emit("lost")

    emitter.once(alarm)
    async with anyio.create_task_group() as group:
        group.start_soon(connection, 1)
        group.start_soon(connection, 3)
    assert alarms == ["lost"]


# --8<-- [end:test]
