"""AnyIO 4.16.0: Task.cancel() in Condition.wait() ends in a RuntimeError."""

import anyio
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore, settle


# --8<-- [start:test]
@explore()
async def test_waiter_can_be_cancelled(victim: Victim) -> None:
    """A cancelled waiter ends with the cancellation, and nothing else."""
    condition = anyio.Condition()
    errors: list[RuntimeError] = []

    async def waiter() -> None:
        async with condition:
            await condition.wait()

    async def impatient() -> None:
        try:
            await victim(waiter)
        except RuntimeError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(impatient)
        await settle()
        async with condition:
            condition.notify()
            await checkpoint()
    assert errors == [], errors


# --8<-- [end:test]
