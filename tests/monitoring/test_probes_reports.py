"""Health reports made in one event loop and awaited in another; here both are one."""

from __future__ import annotations

import asyncio
import sys
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal import loops
from mtaio.monitoring import HealthRegistry
from mtaio.monitoring._probes import Reports
from mtaio.testing import run

if TYPE_CHECKING:
    from mtaio.monitoring import HealthReport
    from mtaio.types import CheckKind


class Maker:
    """Makes reports, slowly."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.health = HealthRegistry()
        self.seconds = seconds
        self.made: list[CheckKind | None] = []
        self.ended = anyio.Event()
        self.reports = Reports(self.make, loops.current_loop())

    async def make(self, kind: CheckKind | None) -> HealthReport:
        """Make a report."""
        self.made.append(kind)
        await anyio.sleep(self.seconds)
        return await self.health.report(kind)

    def start(self) -> None:
        """Serve as `Probes` does."""
        loops.start_task(loops.current_loop(), self.reports.serve, copy_context(), self.ended.set)

    async def end(self) -> None:
        """Stop serving."""
        self.reports.stop()
        await self.ended.wait()


async def test_shared() -> None:
    """Those that wait at once for one kind share a report; another kind does not wait for it."""
    maker = Maker()
    maker.start()
    found: list[tuple[float, CheckKind | None, HealthReport | None]] = []

    async def ask(kind: CheckKind | None) -> None:
        report = await maker.reports.get(kind, within=5)
        found.append((anyio.current_time(), kind, report))

    started = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask, "ready")
        await anyio.sleep(0.5)
        group.start_soon(ask, "live")
        group.start_soon(ask, "ready")
    assert maker.made == ["ready", "live"]
    assert [moment - started for moment, _, _ in found] == [1.0] * 21 + [1.5]
    assert all(report is not None for _, _, report in found)
    first = found[0][2]
    assert all(report is first for _, kind, report in found if kind == "ready")
    await maker.end()


async def test_late() -> None:
    """Who asks goes on after the time given; the report is still made, for the next who asks."""
    maker = Maker(seconds=3)
    maker.start()
    started = anyio.current_time()
    assert await maker.reports.get("ready", within=2) is None
    assert anyio.current_time() - started == 2
    report = await maker.reports.get("ready", within=2)
    assert report is not None
    assert anyio.current_time() - started == 3
    assert maker.made == ["ready"]
    assert await maker.reports.get("ready", within=2) is None
    assert maker.made == ["ready", "ready"]
    await maker.end()


async def test_cancelled() -> None:
    """Who is cancelled leaves the report to others."""
    maker = Maker()
    maker.start()
    with anyio.move_on_after(0.5) as scope:
        await maker.reports.get("ready", within=5)
    assert scope.cancelled_caught
    assert await maker.reports.get("ready", within=5) is not None
    assert maker.made == ["ready"]
    await maker.end()


async def test_asked_before_served() -> None:
    """A report that was asked for before anybody served is made."""
    maker = Maker()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: maker.reports.get("ready", within=5))
        await anyio.sleep(2)
        maker.start()
    assert maker.made == ["ready"]
    await maker.end()


async def test_stopped() -> None:
    """Nobody waits for long when no reports are made any more; one that is being made ends."""
    maker = Maker()
    maker.start()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: maker.reports.get("ready", within=5))
        await anyio.sleep(0.5)
        await maker.end()
    started = anyio.current_time()
    assert await maker.reports.get("live", within=1) is None
    assert anyio.current_time() - started == 1
    assert maker.made == ["ready"]


async def test_stopped_at_once() -> None:
    """It may be stopped before it has begun."""
    maker = Maker()
    maker.start()
    await maker.end()


class Fatal(BaseException):
    """What some frameworks raise past ``except Exception``."""


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3), Fatal()], ids=repr)
async def test_failing(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """A report that fails is logged and answered with none; the next is made."""
    ended = anyio.Event()
    health = HealthRegistry()
    errors = [error]

    async def make(kind: CheckKind | None) -> HealthReport:
        if errors:
            raise errors.pop()
        return await health.report(kind)

    reports = Reports(make, loops.current_loop())
    loops.start_task(loops.current_loop(), reports.serve, copy_context(), ended.set)
    assert await reports.get("ready", within=5) is None
    assert caplog.messages == ["cannot make a health report"]
    assert await reports.get("ready", within=5) is not None
    reports.stop()
    await ended.wait()


def test_loop_is_over(backend: str) -> None:
    """When the loop that made reports is over, that is known at once."""

    async def first() -> Reports:
        maker = Maker()
        maker.start()
        assert await maker.reports.get(None, within=5) is not None
        return maker.reports

    async def second(reports: Reports) -> None:
        started = anyio.current_time()
        assert await reports.get(None, within=5) is None
        assert anyio.current_time() == started

    reports = run(first, backend=backend)
    run(second, reports, backend=backend)


def test_ends_with_its_loop(backend: str) -> None:
    """A loop that ends while a report is made cancels it, tells so, and prints nothing."""
    ended: list[bool] = []

    async def main() -> None:
        maker = Maker(seconds=1e9)
        loop = loops.current_loop()
        reports = Reports(maker.make, loop)
        loops.start_task(loop, reports.serve, copy_context(), lambda: ended.append(True))
        assert await reports.get(None, within=5) is None
        assert maker.made == [None]

    unraisable: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        run(main, backend=backend)
    finally:
        sys.unraisablehook = hook
    assert ended == [True]
    assert unraisable == []


def test_cancelled_natively(caplog: pytest.LogCaptureFixture) -> None:
    """As asyncio cancels all tasks when it ends, in any order: that is no failure, and not told."""

    async def main() -> None:
        maker = Maker(seconds=1e9)
        maker.start()
        assert await maker.reports.get("ready", within=0.01) is None
        (making,) = (each for each in asyncio.all_tasks() if "_answer" in repr(each.get_coro()))
        making.cancel()
        await asyncio.wait([making])
        await maker.end()

    asyncio.run(main())
    assert caplog.messages == []


@pytest.mark.parametrize("steps", range(8))
def test_asked_as_the_loop_ends(steps: int, backend: str) -> None:
    """A report that is asked for so many steps before the loop's last prints nothing."""

    async def ask(maker: Maker) -> None:
        await maker.reports.get(None, within=5)

    async def main() -> None:
        maker = Maker()
        maker.start()
        await anyio.sleep(1)
        loops.start_task(loops.current_loop(), partial(ask, maker), copy_context())
        for _ in range(steps):
            await checkpoint()

    unraisable: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        run(main, backend=backend)
    finally:
        sys.unraisablehook = hook
    assert unraisable == []


async def test_stopped_while_reports_are_made() -> None:
    """Stopping cancels the reports that are being made, and waits for them."""
    maker = Maker(seconds=1e9)
    maker.start()
    assert await maker.reports.get("ready", within=0.01) is None
    assert await maker.reports.get("live", within=0.01) is None
    started = anyio.current_time()
    await maker.end()
    assert anyio.current_time() == started
    assert sorted(map(str, maker.made)) == ["live", "ready"]
