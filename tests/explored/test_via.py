"""Calls in a pool under many schedules: each is made at most once, and every place comes back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import ExternalPool, TaskExecutor
from mtaio.testing import assert_quiescent, explore, settle
from tests.core.manual_pool import ManualPool
from tests.explored.searches import SEEDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from mtaio.testing import Simulation, Victim


class ServedPool(ManualPool):
    """A pool whose worker is a task."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = anyio.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a call, and wake the worker."""
        self.arrived.set()
        return super().submit(fn, *args, **kwargs)

    async def work(self) -> None:
        """Begin and end one call after another, with a step between."""
        for number in range(10):
            while number >= len(self.sent):
                self.arrived = anyio.Event()
                await self.arrived.wait()
            if self.sent[number].begin():
                await checkpoint()
                self.sent[number].end()


@pytest.mark.parametrize("chunksize", [1, 2])
@explore(seeds=SEEDS, exhaustive=1, max_runs=100_000)
async def test_map_in_a_pool(sim: Simulation, victim: Victim, chunksize: int) -> None:
    """Results stand in their places, each call is made once, and its place comes back."""
    pool = ServedPool()
    limited = ExternalPool(pool, limit=2)
    executor = TaskExecutor()
    made: list[int] = []

    def double(x: int) -> int:
        made.append(x)
        return 2 * x

    sim.always(lambda: limited.statistics().in_use <= 2)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.work)
        call = partial(executor.map, double, range(3), via=limited, chunksize=chunksize)
        results = await victim(call)
        assert (results is None) == victim.cancelled
        assert results in (None, [0, 2, 4])
        group.cancel_scope.cancel()
    pool.end_all()
    await settle()
    assert sorted(set(made)) == sorted(made)
    assert all(sent.future.done() for sent in pool.sent)
    assert_quiescent(executor, limited)
