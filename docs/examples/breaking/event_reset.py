"""A drain that resets its event too late, and then waits for the past."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mtaio.testing import explore


class WrongJobs:
    """Runs jobs in the background, and can wait until there are none."""

    def __init__(self, group: TaskGroup) -> None:
        self.running = 0
        self._group = group
        self._idle = anyio.Event()

    def submit(self, job: Callable[[], Awaitable[None]]) -> None:
        """Start a job."""
        self.running += 1
        self._group.start_soon(self._run, job)

    async def _run(self, job: Callable[[], Awaitable[None]]) -> None:
        await job()
        self.running -= 1
        if not self.running:
            self._idle.set()

    # --8<-- [start:wrong]
    async def drain(self, report: Callable[[int], Awaitable[None]]) -> None:
        """Wait until no job is left; ``report`` how many there still are."""
        while self.running:
            await report(self.running)
            self._idle = anyio.Event()
            await self._idle.wait()

    # --8<-- [end:wrong]


class RightJobs(WrongJobs):
    """Resets the event in the same step in which it checks the count."""

    async def drain(self, report: Callable[[int], Awaitable[None]]) -> None:
        """Wait until no job is left; ``report`` how many there still are."""
        while self.running:
            self._idle = anyio.Event()
            await report(self.running)
            await self._idle.wait()


# --8<-- [start:test]
@pytest.mark.parametrize("kind", [WrongJobs, RightJobs])
@explore()
async def test_drain_ends(kind: type[WrongJobs]) -> None:
    async def job() -> None:
        for _ in range(2):
            await checkpoint()

    async def report(_running: int) -> None:
        await checkpoint()

    async with anyio.create_task_group() as group:
        jobs = kind(group)
        jobs.submit(job)
        await jobs.drain(report)
        assert jobs.running == 0


# --8<-- [end:test]
