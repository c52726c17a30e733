"""asyncio of Python 3.11: the wake-up of a cancelled waiter is lost."""

import asyncio

import anyio

from mtaio.testing import Victim, explore, settle


# --8<-- [start:test]
@explore(backends=("asyncio",))
async def test_notification_is_not_lost(victim: Victim) -> None:
    """There is one item and a notification; one of two waiters takes it."""
    condition = asyncio.Condition()
    items: list[str] = []

    async def take() -> None:
        async with condition:
            await condition.wait_for(lambda: items)
            items.pop()

    async def impatient() -> None:
        await victim(take)

    async with anyio.create_task_group() as group:
        group.start_soon(impatient)
        group.start_soon(take)
        await settle()
        async with condition:
            items.append("parcel")
            condition.notify()
        await settle()
        left = len(items)
        group.cancel_scope.cancel()
    assert left == 0, "nobody has taken it"


# --8<-- [end:test]
