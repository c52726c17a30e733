"""Streams through a pipeline, and each in its time, under many schedules, cancelled everywhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.lowlevel import checkpoint

from mtaio.core import Budget, Retry
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resilience import AdaptiveLimiter, Breaker, BreakerState, Hedge, Pipeline, Timeout
from mtaio.resources import ConcurrencyLimiter, TimeoutManager
from mtaio.testing import assert_quiescent
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mtaio.testing import Simulation, Victim


class Door:
    """A stream that stays open until it is closed, which takes a moment."""

    def __init__(self, open_doors: set[object], items: int, first: float) -> None:
        self._open = open_doors
        self._left = items
        self._first = first

    async def open(self) -> Self:
        """Open it."""
        await checkpoint()
        self._open.add(self)
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        await anyio.sleep(self._first)
        self._first = 0
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return self._left

    async def aclose(self) -> None:
        """Close it."""
        try:
            await checkpoint()
        finally:
            self._open.discard(self)


class Stage:
    """
    A pipeline of all parts, whose attempts open doors.

    Args:
        sim: Where it is watched.
        *firsts: How long the first item of each attempt takes; negative for those that fail then.
    """

    def __init__(self, sim: Simulation, *firsts: float) -> None:
        self.slots = ConcurrencyLimiter(2)
        self.breaker = Breaker(1, last=9, min_calls=9)
        self.budget = Budget(1, min_per_second=9)
        self.api = Pipeline(
            Timeout(50, total=True),
            Retry(2, wait_initial=1, jitter=0, budget=self.budget),
            self.breaker,
            Hedge(1),
            self.slots,
            AdaptiveLimiter(initial=4, max_waiting=9),
            Timeout(30, first=5, between=4),
        )
        self.open: set[object] = set()
        self.inside = 0
        self.failed = 0
        self.got: dict[str, list[int]] = {}
        self._firsts = iter(firsts)
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether an open stream that the consumer has got has a slot."""
        now = self.api.statistics()
        return (
            self.inside <= self.slots.statistics().in_use
            and now.in_flight == now.calls - now.succeeded - now.failed - now.cancelled
        )

    async def doors(self, items: int) -> AsyncGenerator[int]:
        """Yield items, behind a door that is closed in the end."""
        door: object = object()
        self.open.add(door)
        try:
            await self._wait()
            for number in range(items):
                yield number
                await checkpoint()
        finally:
            self.open.discard(door)

    def door(self, items: int) -> Any:
        """Return a door that is being opened."""
        return Door(self.open, items, next(self._firsts)).open()

    async def _wait(self) -> None:
        first = next(self._firsts)
        await anyio.sleep(abs(first))
        if first < 0:
            raise ConnectionError

    async def consume(self, name: str, kind: str, most: int = 9) -> None:
        """Iterate a stream of two items."""
        try:
            await self._consume(name, kind, most)
        except ConnectionError:  # it had failed as the cancellation came
            self.failed += 1

    async def _consume(self, name: str, kind: str, most: int) -> None:
        got = self.got[name] = []
        async with self.api.stream(getattr(self, kind), 2) as items:
            assert len(self.open) <= len(self.got)  # no loser is open any more
            self.inside += 1
            try:
                async for item in items:
                    got.append(item)
                    if len(got) == most:
                        break
                    await checkpoint()
            finally:
                self.inside -= 1

    def clear(self) -> None:
        """Make sure that nothing is left."""
        assert not self.open
        assert self.inside == 0
        assert_quiescent(self.api)
        assert self.breaker.state is BreakerState.CLOSED


@explored
async def test_two_attempts_open_at_one_moment(victim: Victim, sim: Simulation) -> None:
    """Of two that open something at one moment one is handed out, and the other closed before."""
    stage = Stage(sim, 2, 1)
    await together(victim=lambda: victim(stage.consume, "victim", "door"))
    stage.clear()
    assert victim.cancelled or stage.got["victim"] == [1, 0]
    now = stage.api.statistics()
    assert (now.calls, now.failed) == (1, 0)
    assert now.cancelled == int(victim.cancelled)


@explored
async def test_retried_and_left_early(victim: Victim, sim: Simulation) -> None:
    """One stream fails before its first item and is opened again; another is left early."""
    stage = Stage(sim, -0.5, 0, 0)
    await together(
        victim=lambda: victim(stage.consume, "victim", "doors"),
        other=lambda: stage.consume("other", "doors", 1),
    )
    stage.clear()
    assert stage.got["other"] == [0]
    now = stage.api.statistics()
    assert (now.calls, now.failed) == (2, stage.failed)
    assert now.cancelled == int(victim.cancelled) <= int(victim.fired) - stage.failed
    assert now.parts["retry"].retried <= 1


@explored
async def test_item_comes_as_its_time_is_up(victim: Victim, sim: Simulation) -> None:
    """An item, its timeout and a cancellation at one moment: an item, an error, or neither."""
    api = Pipeline(Timeout(3, first=1, between=1))
    open_doors: set[object] = set()
    ends: list[object] = []

    async def items() -> AsyncGenerator[int]:
        open_doors.add(1)
        try:
            for number in range(9):
                await anyio.sleep(1)
                yield number
        finally:
            open_doors.discard(1)

    async def consume() -> None:
        try:
            async with api.stream(items) as stream:
                async for item in stream:
                    ends.append(item)  # noqa: PERF401 - what has come before an error counts
        except MTAIOTimeoutError as error:
            ends.append(error)

    await together(victim=partial(victim, consume))
    assert not open_doors
    assert_quiescent(api)
    assert sim.time() <= 4
    *got, last = ends or [None]
    assert got == list(range(len(got)))
    assert last is None or victim.cancelled or isinstance(last, MTAIOTimeoutError)
    now = api.statistics()
    assert now.failed == now.parts["timeout"].timed_out == isinstance(last, MTAIOTimeoutError)


@explored
async def test_each_item_in_its_time(victim: Victim, sim: Simulation) -> None:
    """The same without a pipeline; the consumer's own time is not limited."""
    timeouts = TimeoutManager(9)
    got: list[int] = []
    open_doors: set[object] = set()

    async def items() -> AsyncGenerator[int]:
        open_doors.add(1)
        try:
            for number in range(3):
                await anyio.sleep(number / 2)
                yield number
        finally:
            open_doors.discard(1)

    async def consume() -> None:
        try:
            async with timeouts.each(items(), first=1, between=1) as stream:
                async for item in stream:
                    got.append(item)
                    await anyio.sleep(2)
        except MTAIOTimeoutError:
            got.append(-1)

    await together(victim=partial(victim, consume))
    assert not open_doors
    assert sim.time() <= 8
    assert victim.cancelled or got in ([0, 1, 2], [0, 1, -1])


@explored
async def test_discarded_results_are_closed(victim: Victim, sim: Simulation) -> None:
    """Two attempts of a call open something at one moment: the caller gets one, at most."""
    doors: set[object] = set()
    seconds = iter([2, 1])

    async def discard(door: object) -> None:
        try:
            await checkpoint()
        finally:
            doors.discard(door)

    async def fetch() -> object:
        await anyio.sleep(next(seconds))
        door = object()
        doors.add(door)
        return door

    async def call() -> None:
        door = await hedge.run(fetch)
        assert doors == {door}
        await discard(door)

    hedge = Hedge(1, discard=discard)
    await together(victim=partial(victim, call))
    assert not doors
    assert sim.time() <= 2
