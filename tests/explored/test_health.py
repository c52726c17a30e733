"""Reports of health under many schedules, cancelled everywhere: one run at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio.monitoring import HealthRegistry
from mtaio.testing import assert_quiescent
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from mtaio.monitoring import HealthReport
    from mtaio.testing import Victim


class Stage:
    """A registry of one check, of which there must never be two runs at once."""

    def __init__(self, *, ttl: float = 0.0, linger: bool = False, timeout: float = 1.0) -> None:
        self.health = HealthRegistry()
        self.health.add("it", self.check, ttl=ttl, timeout=timeout)
        self.linger = linger
        self.started = 0
        self.running = 0
        self.ended = 0
        self.reports: dict[str, HealthReport] = {}

    async def check(self) -> None:
        """Suspend twice; and once more when cancelled, if it is to linger."""
        self.started += 1
        self.running += 1
        assert self.running == 1
        try:
            await checkpoint()
            await checkpoint()
            self.ended += 1
        finally:
            if self.linger:
                with anyio.CancelScope(shield=True):
                    await checkpoint()
            self.running -= 1

    async def ask(self, name: str) -> None:
        """Ask for a report, and keep it."""
        self.reports[name] = await self.health.report()

    def clear(self, *names: str) -> None:
        """Assert what must hold in the end: those named were answered, and nothing runs."""
        assert_quiescent(self.health)
        assert self.running == 0
        for name in names:
            assert self.reports[name].ready
        statistics = self.health.statistics()
        assert statistics.failed == 0
        assert statistics.runs - statistics.cancelled == self.ended


@explored
async def test_one_run_for_all(victim: Victim) -> None:
    """A caller that is cancelled costs the others nothing, and the check no failure."""
    stage = Stage(ttl=9)
    await together(
        victim=lambda: victim(stage.ask, "victim"),
        a=lambda: stage.ask("a"),
        b=lambda: stage.ask("b"),
    )
    stage.clear("a", "b")
    assert victim.cancelled or stage.reports["victim"].ready
    assert stage.ended == 1
    assert stage.started <= 1 + victim.fired


@explored
async def test_lingering_check(victim: Victim) -> None:
    """A run that is being cancelled is not joined, and the next one waits for its end."""
    stage = Stage(ttl=9, linger=True)

    async def again() -> None:
        await checkpoint()
        await stage.ask("a")

    await together(victim=lambda: victim(stage.ask, "victim"), again=again)
    stage.clear("a")
    assert stage.ended == 1


@explored
async def test_fresh_answers_only(victim: Victim) -> None:
    """Without a ttl each caller gets an answer of a run that ended while it asked."""
    stage = Stage()

    async def twice() -> None:
        for name in ("a", "b"):
            ended = stage.ended
            await stage.ask(name)
            assert stage.ended > ended

    await together(victim=lambda: victim(stage.ask, "victim"), twice=twice)
    stage.clear("a", "b")
    assert 2 <= stage.ended <= 3


@explored
async def test_timeout_beside_cancellation(victim: Victim) -> None:
    """A check that hangs is cancelled when its time is up, whoever waits for it by then."""
    health = HealthRegistry()
    running = 0

    async def hang() -> None:
        nonlocal running
        running += 1
        assert running == 1
        try:
            await anyio.sleep_forever()
        finally:
            running -= 1

    health.add("it", hang, timeout=1, ttl=9)
    seen: list[int] = []

    async def ask() -> None:
        report = await health.report()
        seen.append(report.checks[0].failures)
        assert anyio.current_time() == 1

    await together(victim=lambda: victim(ask), a=ask)
    assert_quiescent(health)
    assert running == 0
    assert seen == [1] * (2 - victim.cancelled)
    statistics = health.statistics()
    assert (statistics.failed, statistics.timed_out) == (1, 1)
    assert statistics.runs == 1 + statistics.cancelled <= 1 + victim.fired


@explored
async def test_removed_and_added_meanwhile(victim: Victim) -> None:
    """A check that goes and comes back while it runs answers those who asked then."""
    stage = Stage(ttl=9)
    other = Stage(ttl=9)

    async def change() -> None:
        await checkpoint()
        stage.health.remove("it")
        stage.health.add("it", other.check)
        await stage.ask("a")

    await together(victim=lambda: victim(stage.ask, "victim"), change=change)
    stage.ended += other.ended
    stage.clear("a")
    assert other.ended == 1
