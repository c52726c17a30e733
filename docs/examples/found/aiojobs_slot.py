"""aiojobs 1.4.0: a job waits in the queue although a slot is free."""

import aiojobs
import anyio
from anyio.lowlevel import checkpoint

from mtaio.testing import explore, settle


# --8<-- [start:test]
@explore(backends=("asyncio",))
async def test_free_slot_is_used() -> None:
    """When two of four jobs have ended, the other two run, with ``limit=2``."""
    scheduler = aiojobs.Scheduler(limit=2, pending_limit=1)
    started: list[str] = []
    end = anyio.Event()

    async def job(name: str, steps: int) -> None:
        started.append(name)
        for _ in range(steps):
            await checkpoint()

    await scheduler.spawn(job("a", steps=1))
    await scheduler.spawn(job("b", steps=2))
    await scheduler.spawn(end.wait())
    await scheduler.spawn(job("d", steps=1))
    await settle()
    by_now = list(started)
    end.set()
    await settle()
    await scheduler.close()
    assert by_now == ["a", "b", "d"], by_now


# --8<-- [end:test]
