"""aiorwlock 1.5.1: readers go on waiting for a writer that has given up."""

import aiorwlock
import anyio

from mtaio.testing import Victim, explore, settle


# --8<-- [start:test]
@explore(backends=("asyncio",))
async def test_readers_do_not_wait_for_nobody(victim: Victim) -> None:
    """When a waiting writer gives up, the readers behind it can go on."""
    lock = aiorwlock.RWLock()
    reading = anyio.Event()

    async def write() -> None:
        async with lock.writer:
            pass

    async def impatient() -> None:
        await victim(write)

    async def read() -> None:
        async with lock.reader:
            reading.set()

    async with anyio.create_task_group() as group, lock.reader:
        group.start_soon(impatient)
        group.start_soon(read)
        await settle()
        stuck = victim.cancelled and not reading.is_set()
    assert not stuck, "a reader waits, and no writer is there"


# --8<-- [end:test]
