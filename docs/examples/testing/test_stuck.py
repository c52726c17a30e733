"""Stuck code fails at once, and shows where."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Deadlock, Livelock, run

BACKENDS = ["asyncio", "trio"]


async def transfer(take: anyio.Semaphore, give: anyio.Semaphore) -> None:
    """Move money from one account to another, with both locked."""
    async with take:
        await anyio.sleep(1)
        async with give:
            pass


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_has_what_the_other_wants(backend: str) -> None:
    """Two transfers in opposite directions wait for each other for ever."""

    async def main() -> None:
        a, b = anyio.Semaphore(1), anyio.Semaphore(1)
        async with anyio.create_task_group() as group:
            group.start_soon(transfer, a, b)
            group.start_soon(transfer, b, a)

    with pytest.raises(Deadlock, match=r"^the run is blocked at t=1") as stuck:
        run(main, backend=backend)
    assert (
        sum("async with give" in str(stack) for stack in stuck.value.stacks)
        == 2
    )
    (cycle,) = stuck.value.cycles
    assert cycle.startswith("2 tasks wait for each other:")


@pytest.mark.parametrize("backend", BACKENDS)
def test_busy_and_getting_nowhere(backend: str) -> None:
    """A loop that polls without waiting is found as well."""

    async def main() -> None:
        tasks: list[str] = []
        while not tasks:
            await checkpoint()

    with pytest.raises(Livelock, match=r"^the run makes no progress at t=0"):
        run(main, backend=backend, max_turns=1000)
