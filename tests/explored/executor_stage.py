"""
An executor on stage: what its items do is written down, and held against what it promises.

Each scenario of ``test_executor_*`` sets one up, lets something go wrong, and calls `Stage.clear`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint

from mtaio.core import TaskExecutor
from mtaio.testing import assert_quiescent, explore
from tests.explored.searches import SEEDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from mtaio.testing import Simulation

T = TypeVar("T")

explored = explore(seeds=SEEDS, exhaustive=2, max_runs=100_000)
"""Every schedule of two delays, 300 at random, and struck at every moment in each mode."""


class Stage:
    """
    An executor whose promises are looked at after every step of any task.

    Args:
        sim: The run's simulation.
        max_workers: For the executor, as are ``options``.
        beyond: How many more items than that may run, where a scenario allows it.
        options: Whatever else the executor takes.
    """

    def __init__(
        self, sim: Simulation, max_workers: int | None = 2, *, beyond: int = 0, **options: Any
    ) -> None:
        self.sim = sim
        self.executor = TaskExecutor(max_workers, **options)
        self.limit: float = float("inf") if max_workers is None else max_workers + beyond
        self.at_work = 0
        self.started: Counter[Any] = Counter()
        self.returned: Counter[Any] = Counter()
        self.raised: Counter[Any] = Counter()
        self.cancelled: Counter[Any] = Counter()
        self.sources = 0
        self.read: Counter[Any] = Counter()
        self.tasks = len(anyio.get_running_tasks())
        sim.always(self.in_order)

    # ---- what items do ----

    async def work(self, x: T, steps: int = 1) -> T:
        """Take so many steps, and return ``x``."""
        with self._noting(x):
            for _ in range(steps):
                await checkpoint()
        return x

    async def sleep(self, x: float) -> float:
        """Sleep for ``x`` seconds, and return ``x``."""
        with self._noting(x):
            await anyio.sleep(x)
        return x

    async def fail(self, x: int) -> int:
        """Take a step, then fail if ``x`` is odd."""
        with self._noting(x):
            await checkpoint()
            if x % 2:
                raise ValueError(x)
        return x

    async def linger(self, x: int) -> int:
        """Take a step, and two more to clean up, whatever happens."""
        with self._noting(x):
            try:
                await checkpoint()
            finally:
                with anyio.CancelScope(shield=True):
                    await checkpoint()
                    await checkpoint()
        return x

    async def source(self, *items: int, error: Exception | None = None) -> AsyncGenerator[int]:
        """Yield the items, a step apart, with a scope open and something to clean up."""
        self.sources += 1
        try:
            with anyio.CancelScope():
                for x in items:
                    await checkpoint()
                    self.read[x] += 1
                    yield x
                if error is not None:
                    raise error
        finally:
            self.sources -= 1

    @contextmanager
    def _noting(self, x: Any) -> Generator[None]:
        self.started[x] += 1
        self.at_work += 1
        how = self.cancelled
        try:
            yield
            how = self.returned
        except Exception:
            how = self.raised
            raise
        finally:
            self.at_work -= 1
            how[x] += 1

    # ---- what holds ----

    def in_order(self) -> bool:
        """Hold the executor to its promises between two steps."""
        assert 0 <= self.at_work <= self.limit, f"{self.at_work} items at work"
        now = self.executor.statistics()
        ended = now.succeeded + now.failed + now.cancelled
        assert now.in_flight == now.started - ended, f"the counters do not add up: {now}"
        assert now.in_flight >= self.at_work, f"{self.at_work} at work, and it says {now.in_flight}"
        assert now.peak >= now.in_flight, f"more than at the peak: {now}"
        assert min(now.succeeded, now.failed, now.cancelled) >= 0, f"negative: {now}"
        if now.max_workers is not None:
            assert now.in_use <= self.limit, f"too many slots: {now}"
            assert not now.waiting or now.in_use >= now.max_workers, (
                f"a free slot and a queue: {now}"
            )
        return True

    def clear(self) -> None:
        """Assert that nothing is left, of whatever kind."""
        assert_quiescent(self.executor)
        assert self.at_work == 0
        assert self.sources == 0
        assert self.read <= self.started  # what was read has begun
        assert self.started == self.returned + self.raised + self.cancelled
        assert len(anyio.get_running_tasks()) == self.tasks
        now = self.executor.statistics()
        assert now.started == now.succeeded + now.failed + now.cancelled


async def caught(afn: Callable[..., Awaitable[Any]], *args: Any) -> tuple[Any, list[BaseException]]:
    """Await ``afn(*args)``; return its result, and the errors that came out of it."""
    try:
        return await afn(*args), []
    except Exception as error:  # noqa: BLE001 - the caller looks at each
        return None, leaves(error)


def leaves(error: BaseException) -> list[BaseException]:
    """Return the errors of which a group of groups consists."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for each in group.exceptions for leaf in leaves(each)]


def reasons(errors: list[BaseException]) -> Counter[Any]:
    """Count what the errors were made with; each of them is a ``ValueError``."""
    assert all(type(error) is ValueError for error in errors), errors
    return Counter(error.args[0] for error in errors)
