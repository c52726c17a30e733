"""Times to live under loops that keep another time than the machine's."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import pytest

from mtaio._internal import clock
from mtaio.cache import TTLCache, cached

trio = pytest.importorskip("trio")
testing = pytest.importorskip("trio.testing")


@pytest.fixture(autouse=True)
def _monotonic() -> Any:
    """Restore the clock, which follows such a loop from then on."""
    before = clock.read
    yield
    clock.follow(before)


class Selector(selectors.DefaultSelector):
    """Waits for nothing, and lets the loop's time pass instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Move the time on."""
        self.now += timeout or 0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own, as looptime's."""

    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        """Return the loop's time."""
        return self.selector.now


async def expires(sleep: Any, *, entered: bool) -> None:
    """Hold that values live as long as the loop's clock says, however they were stored."""
    calls = 0

    @cached(ttl=10)
    async def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    cache: TTLCache[int] = TTLCache(10)

    async def load() -> int:
        return 1

    async def use() -> None:
        cache.set_nowait("set", 1)
        cache.set_nowait("touched", 1, 5)
        assert cache.touch_nowait("touched")
        assert await cache.get_or_set("loaded", load) == 1
        assert await count() == 1
        await sleep(9)
        assert set(cache) == {"set", "touched", "loaded"}
        assert [await count(), cache.get_nowait("set")] == [1, 1]
        await sleep(2)
        assert [*cache] == []
        assert [await count(), cache.get_nowait("set")] == [2, None]
        await sleep(2)
        assert len(cache) == (0 if entered else 2)

    if entered:
        async with cache:
            await use()
    else:
        await use()


@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
def test_mock_clock_of_trio(*, entered: bool) -> None:
    """Under trio's MockClock values expire when its tasks wake."""
    mock = testing.MockClock(autojump_threshold=0)

    async def main() -> None:
        await expires(trio.sleep, entered=entered)

    trio.run(main, clock=mock)


@pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])
def test_loop_with_a_clock_of_its_own(*, entered: bool) -> None:
    """Under a loop class with another clock values expire when its tasks wake."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(expires(asyncio.sleep, entered=entered))
    finally:
        loop.close()


def test_read_in_the_middle_of_a_change() -> None:
    """A key that reads the cache while it is compared is told the time by the loop's clock too."""
    cache: TTLCache[int] = TTLCache(10)
    seen: list[int | None] = []

    class Key:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            seen.append(cache.get_nowait("other"))
            assert ("other", 1) in cache.items()
            return self is other

    async def main() -> None:
        cache.set_nowait("other", 1)
        cache.set_nowait(Key(), 1)
        await asyncio.sleep(5)
        cache.set_nowait(Key(), 2)

    loop = VirtualLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert set(seen) == {1}
