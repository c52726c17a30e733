"""cashews 7.6.0: the cancellation of one caller cancels the other too."""

import asyncio

import anyio
from anyio.lowlevel import checkpoint
from cashews import Cache

from mtaio.testing import Victim, explore


# --8<-- [start:test]
@explore(backends=("asyncio",))
async def test_others_get_their_value(victim: Victim) -> None:
    """Two ask for the same value; if one is cancelled, the other gets it."""
    cache = Cache()
    cache.setup("mem://", check_interval=0)
    outcomes: list[str] = []

    @cache(ttl="1m", key="value")
    async def load() -> str:
        await checkpoint()
        return "loaded"

    async def impatient() -> None:
        await victim(load)

    async def patient() -> None:
        try:
            outcomes.append(await load())
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(impatient)
        group.start_soon(patient)
    await cache.close()
    assert outcomes == ["loaded"], outcomes


# --8<-- [end:test]
