"""A setting whose followers miss a change while they apply the previous one."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import explore


class WrongSetting:
    """A value that others follow."""

    def __init__(self, value: int) -> None:
        self.value = value
        self._changed = anyio.Event()

    # --8<-- [start:wrong]
    def change(self, value: int) -> None:
        """Set the value, and wake the waiters."""
        self.value = value
        self._changed.set()
        self._changed = anyio.Event()

    async def follow(self, apply: Callable[[int], Awaitable[None]]) -> None:
        """Call ``apply`` with the value, and again whenever it has changed."""
        while True:
            await apply(self.value)
            await self._changed.wait()

    # --8<-- [end:wrong]


class RightSetting(WrongSetting):
    """Gets the event of the next change before it reads the value."""

    async def follow(self, apply: Callable[[int], Awaitable[None]]) -> None:
        """Call ``apply`` with the value, and again whenever it has changed."""
        while True:
            changed = self._changed
            await apply(self.value)
            await changed.wait()


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongSetting, RightSetting])
@explore()
async def test_change_arrives(kind: type[WrongSetting]) -> None:
    setting = kind(1)
    arrived = anyio.Event()

    async def apply(value: int) -> None:
        await checkpoint()
        if value == 2:
            arrived.set()

    async with anyio.create_task_group() as group:
        group.start_soon(setting.follow, apply)
        for _ in range(3):
            await checkpoint()
        setting.change(2)
        await arrived.wait()
        group.cancel_scope.cancel()


# --8<-- [end:test]
