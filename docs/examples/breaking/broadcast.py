"""A chat room that iterates over its members while one of them joins."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import explore


class WrongRoom:
    """Sends what one member says to all."""

    def __init__(self) -> None:
        self._members: dict[str, Callable[[str], Awaitable[None]]] = {}

    def join(self, name: str, send: Callable[[str], Awaitable[None]]) -> None:
        """Add a member."""
        self._members[name] = send

    # --8<-- [start:wrong]
    async def say(self, text: str) -> None:
        """Send a text to each member."""
        for send in self._members.values():
            await send(text)

    # --8<-- [end:wrong]


class RightRoom(WrongRoom):
    """Iterates over a copy, which does not change."""

    async def say(self, text: str) -> None:
        """Send a text to each member."""
        for send in tuple(self._members.values()):
            await send(text)


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongRoom, RightRoom])
@explore()
async def test_members_hear_it(kind: type[WrongRoom]) -> None:
    heard: list[str] = []

    async def send(text: str) -> None:
        await checkpoint()
        heard.append(text)

    room = kind()
    room.join("Ann", send)

    async def newcomer() -> None:
        for _ in range(2):
            await checkpoint()
        room.join("Ben", send)

    async with anyio.create_task_group() as group:
        group.start_soon(newcomer)
        await room.say("hello")
    assert heard == ["hello"]


# --8<-- [end:test]
