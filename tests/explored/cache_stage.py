"""
A cache on stage, in front of a source that changes: what callers get is held against the source.

Each scenario of ``test_cache_*`` sets one up, has tasks ask and change, and calls `Stage.clear`.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from mtaio.cache import TTLCache
from mtaio.exceptions import CacheClosedError
from mtaio.testing import assert_quiescent, explore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mtaio.testing import Simulation

__all__ = ["SourceError", "Stage", "explored"]

explored = explore(seeds=100, exhaustive=2)
"""As the others, with fewer schedules at random: there are many scenarios, and none needs more."""

Answer = tuple[str, int]
"""A key, and the version of the source from which its value was loaded."""


class SourceError(Exception):
    """What the source raises."""


class Stage:
    """
    A cache of what a source has, and the promises that hold after every step of any task.

    The source has a version, which `changes` raises and then takes the key from the cache. A caller
    that asks after that must not get what was loaded from an earlier one, whatever was in flight.

    Args:
        sim: The run's simulation.
        options: For the cache.
    """

    def __init__(self, sim: Simulation, **options: Any) -> None:
        self.sim = sim
        self.heard: list[tuple[Any, Answer, str]] = []
        self.cache: TTLCache[Answer] = TTLCache(
            **{"default_ttl": 100, "on_removed": self.hears, **options}
        )
        self.limit = float("inf") if self.cache.max_size is None else self.cache.max_size
        self.version = 0
        self.callers = 0
        self.at_work = 0
        self.started: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.got: dict[str, Answer | str] = {}
        self.tasks = len(anyio.get_running_tasks())
        sim.always(self.in_order)

    def hears(self, key: object, value: Answer, cause: object) -> None:
        """Be the listener."""
        assert value[0] == key
        self.heard.append((key, value, str(cause)))

    def in_order(self) -> bool:
        """Return whether the cache keeps its promises at this moment."""
        now = self.cache.statistics()
        return (
            now.size <= self.limit
            and now.weight == now.size
            and 0 <= now.waiting <= self.callers + now.in_flight  # loads may wait for loads
            and now.in_flight >= self.at_work
            and now.loads >= self.started.total()
            and all(key == value[0] for key, value in self.cache.items())
        )

    # ---- what loaders do ----

    async def load(self, key: str, steps: int = 1) -> Answer:
        """Read the source, and take so many steps to come back with it."""
        self.started[key] += 1
        self.at_work += 1
        answer = key, self.version
        try:
            for _ in range(steps):
                await checkpoint()
        except BaseException:
            self.cancelled[key] += 1
            raise
        finally:
            self.at_work -= 1
        self.ended[key] += 1
        return answer

    async def fail(self, key: str) -> Answer:
        """Read the source, in vain."""
        await self.load(key)
        self.failed[key] += 1
        raise SourceError(key, self.failed[key])

    async def linger(self, key: str) -> Answer:
        """Read the source, and come back with it even if cancelled, as a worker thread would."""
        answer = key, self.version
        self.started[key] += 1
        self.at_work += 1
        try:
            with anyio.CancelScope(shield=True):
                await checkpoint()
                await checkpoint()
        except BaseException:  # Task.cancel() minds no shield
            self.cancelled[key] += 1
            raise
        finally:
            self.at_work -= 1
        self.ended[key] += 1
        return answer

    # ---- what callers do ----

    async def ask(self, name: str, key: str = "k", how: Any = None, **options: Any) -> None:
        """Ask for a key, and see that the answer is not older than the question."""
        since = self.version
        self.callers += 1
        loader = self.load if how is None else how
        try:
            answer = await self.cache.get_or_set(key, lambda: loader(key), **options)
        except (SourceError, CacheClosedError) as error:
            self.got[name] = type(error).__name__
        else:
            assert answer[0] == key
            assert answer[1] >= since, f"{name} asked at {since} and got {answer}"
            self.got[name] = answer
        finally:
            self.callers -= 1

    async def ask_many(self, name: str, keys: str, without: str = "") -> None:
        """Ask for several keys, which one loader brings, but for those it leaves out."""
        since = self.version
        self.callers += len(keys)

        async def load(given: list[str]) -> dict[str, Answer]:
            async with anyio.create_task_group() as group:
                for key in given[1:]:
                    group.start_soon(self.load, key)
                answer = await self.load(given[0])
            return {key: (key, answer[1]) for key in given if key not in without}

        try:
            answers = await self.cache.get_or_set_many([*keys], load)
        except CacheClosedError as error:
            self.got[name] = type(error).__name__
        else:
            assert set(keys) - set(without) <= set(answers) <= set(keys)
            for key, answer in answers.items():
                assert answer[0] == key
                assert answer[1] >= since, f"{name} asked at {since} and got {answer}"
            self.got[name] = next(iter(answers.values()))
        finally:
            self.callers -= len(keys)

    async def renew(self, name: str, key: str = "k", how: Any = None) -> None:
        """Have a key loaded again, which must start after the question."""
        since = self.started[key]
        self.callers += 1
        loader = self.load if how is None else how
        try:
            self.got[name] = await self.cache.refresh(key, lambda: loader(key))
        except (SourceError, CacheClosedError) as error:
            self.got[name] = type(error).__name__
        else:
            assert self.started[key] > since
        finally:
            self.callers -= 1

    def changes(self, key: str = "k") -> None:
        """Change the source, and take the key from the cache."""
        self.version += 1
        self.cache.delete_nowait(key)

    async def after(self, steps: int, then: Any, *args: Any) -> None:
        """Take so many steps, then do something plain."""
        for _ in range(steps):
            await checkpoint()
        then(*args)

    @asynccontextmanager
    async def entered(self, *, really: bool = True) -> AsyncGenerator[None]:
        """Have the cache entered in the block, or not."""
        async with AsyncExitStack() as stack:
            if really:
                await stack.enter_async_context(self.cache)
            yield

    def clear(self, *served: str) -> None:
        """Make sure that nothing is left over, and that these callers got what they asked for."""
        for name in served:
            assert isinstance(self.got[name], tuple), f"{name} got {self.got[name]}"
        now = self.cache.statistics()
        assert now.loads >= self.started.total()
        assert self.started == self.ended + self.cancelled
        assert self.at_work == 0
        assert not self.cache._loads.table
        assert len(anyio.get_running_tasks()) == self.tasks
        assert_quiescent(self.cache)
        # Every value that came is there, or was reported when it went.
        assert len({id(value) for _, value, _ in self.heard}) == len(self.heard)
