"""Two transfers that wait for each other: the test fails, and shows where."""

import anyio

from mtaio.testing import run


async def transfer(take: anyio.Lock, give: anyio.Lock) -> None:
    """Move money from one account to another, with both locked."""
    async with take:
        await anyio.sleep(1)
        async with give:
            pass


async def both() -> None:
    """Transfer money in both directions at once."""
    a, b = anyio.Lock(), anyio.Lock()
    async with anyio.create_task_group() as group:
        group.start_soon(transfer, a, b)
        group.start_soon(transfer, b, a)


def test_wrong_order() -> None:
    run(both, backend="asyncio")  # or "trio"
