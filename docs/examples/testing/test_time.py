"""A client that waits longer after each failure, tested in no time."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from mtaio.testing import Simulation, settle


async def patiently(ask: Callable[[], Awaitable[str]]) -> str:
    """Ask until there is an answer, with pauses of 1, 2, 4 … 60 seconds."""
    pause = 1.0
    while True:
        try:
            return await ask()
        except OSError:
            await anyio.sleep(pause)
            pause = min(pause * 2, 60)


pytestmark = pytest.mark.anyio


async def test_pauses_grow_up_to_a_minute(sim: Simulation) -> None:
    asked: list[float] = []

    async def ask() -> str:
        asked.append(sim.time())
        if len(asked) < 9:
            raise ConnectionError
        return "here I am"

    assert await patiently(ask) == "here I am"
    assert asked == [0, 1, 3, 7, 15, 31, 63, 123, 183]


async def test_nothing_happens_in_a_pause(sim: Simulation) -> None:
    attempts = 0

    async def ask() -> str:
        nonlocal attempts
        attempts += 1
        raise ConnectionError

    async with anyio.create_task_group() as group:
        group.start_soon(patiently, ask)
        await settle()  # it has run as far as it can
        assert attempts == 1
        await sim.advance(0.999)
        assert attempts == 1
        await sim.advance(0.001)
        assert attempts == 2
        group.cancel_scope.cancel()
