"""Event loops whose clocks start anywhere, and who runs a function on one."""

from __future__ import annotations

import asyncio
import selectors
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from mtaio._internal import clock
from mtaio.testing import run
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Runner = Callable[[Callable[[], Awaitable[Any]]], Any]


class LeapingSelector(selectors.SelectSelector):
    """Does not sleep: the time goes on by as much as it would have slept."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.time = start

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready at once, unless only another thread can wake the loop."""
        self.time += timeout or 0.0
        return super().select(None if timeout is None else 0)


class LeapingLoop(asyncio.SelectorEventLoop):
    """A loop with its own time, as a test suite or a simulation may bring along."""

    def __init__(self, start: float = 0.0) -> None:
        self.leaping = LeapingSelector(start)
        super().__init__(self.leaping)

    def time(self) -> float:
        """Return the time of the selector."""
        return self.leaping.time


def leap(fn: Callable[[], Awaitable[Any]], start: float = 0.0) -> Any:
    """Run ``fn`` on a loop that keeps its own time."""
    return anyio.run(fn, backend_options={"loop_factory": partial(LeapingLoop, start)})


def mock(fn: Callable[[], Awaitable[Any]], start: float = 0.0) -> Any:
    """Run ``fn`` under trio's MockClock."""
    trio = pytest.importorskip("trio")
    mocked = pytest.importorskip("trio.testing").MockClock(autojump_threshold=0)
    if start:
        mocked.jump(start)
    return trio.run(fn, clock=mocked)


def simulate(fn: Callable[[], Awaitable[Any]], start: float = 0.0, backend: str = "asyncio") -> Any:
    """Run ``fn`` under virtual time, some time after its beginning."""

    async def later() -> Any:
        await anyio.sleep(start)
        return await fn()

    return run(later, backend=backend)


CLOCKS: Final[dict[str, Runner]] = {
    "virtual": simulate,
    "virtual, late": partial(simulate, start=3600.0),
    **(
        {
            "virtual, trio": partial(simulate, backend="trio"),
            "virtual, late, trio": partial(simulate, start=86_400.0, backend="trio"),
        }
        if "trio" in BACKENDS
        else {}
    ),
    "own": leap,
    "own, behind": partial(leap, start=-1e5),
    "own, ahead": partial(leap, start=1e6),
    "mock": mock,
    "mock, late": partial(mock, start=500.0),
}


class Hands:
    """A clock that is set by hand, and others that take over from it."""

    def __init__(self, now: float) -> None:
        self.take_over(now)

    def take_over(self, now: float) -> None:
        """Let another clock take over, which says ``now``."""
        self._now = says = [now]
        clock.follow(clock.Clock(lambda: says[0]))

    @property
    def now(self) -> float:
        """What it says."""
        return self._now[0]

    @now.setter
    def now(self, now: float) -> None:
        self._now[0] = now


@contextmanager
def by_hand(now: float = 0.0) -> Iterator[Hands]:
    """Let mtaio's time be that of a clock that is set by hand."""
    before = clock.read
    try:
        yield Hands(now)
    finally:
        clock.follow(before)
