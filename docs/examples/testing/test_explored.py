"""What an explored test can check: an invariant, a victim, and leftovers."""

# --8<-- [start:victim]
import anyio
from anyio.lowlevel import checkpoint

from mtaio import ConcurrencyLimiter
from mtaio.testing import Simulation, Victim, assert_quiescent, explore


@explore()
async def test_nothing_is_left_behind(victim: Victim) -> None:
    limiter = ConcurrencyLimiter(1)

    async def work() -> None:
        async with limiter:
            await checkpoint()

    async def impatient() -> None:
        await victim(work)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        group.start_soon(impatient)
    assert_quiescent(limiter)


# --8<-- [end:victim]
# --8<-- [start:always]
@explore()
async def test_never_more_than_two(sim: Simulation) -> None:
    limiter = ConcurrencyLimiter(2)
    at_work: set[str] = set()
    sim.always(lambda: len(at_work) <= 2)

    async def work(name: str) -> None:
        async with limiter:
            at_work.add(name)
            await checkpoint()
            at_work.remove(name)

    async with anyio.create_task_group() as group:
        for name in ("Ann", "Ben", "Cem"):
            group.start_soon(work, name)


# --8<-- [end:always]
