"""Reports of checks that do anything, asked for by callers who give up at any time."""

from __future__ import annotations

import math
from random import Random
from typing import Final

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.monitoring import HealthRegistry
from mtaio.testing import assert_quiescent, run

GRACE: Final = 0.1
TICK: Final = 1e-9
TIMEOUTS: Final = (0.1, 0.3, 0.5)


class Stage:
    """Three checks of one registry, and what must hold of them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - reproducible, and no secret
        self.health = HealthRegistry()
        self.running = [0] * len(TIMEOUTS)
        for number, timeout in enumerate(TIMEOUTS):
            self.add(number, timeout)

    def add(self, number: int, timeout: float) -> None:
        """Add a check."""

        async def check() -> object:
            self.running[number] += 1
            assert self.running[number] == 1
            try:
                return await self.do_anything()
            finally:
                self.running[number] -= 1

        ttl, failures = self.random.choice((0, 0.2, 1)), self.random.choice((1, 3))
        self.health.add(str(number), check, timeout=timeout, ttl=ttl, failure_threshold=failures)

    async def do_anything(self) -> object:
        """Pass, fail, take long, take long to clean up, or do not let itself be cancelled."""
        act, seconds = self.random.randrange(6), self.random.random()
        if act == 0:
            raise ValueError
        if act == 1:
            return False
        if act == 2:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds * 1.5)
            return None
        try:
            await anyio.sleep(seconds / 4 if act == 3 else seconds * 2)
        finally:
            if act == 4:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(seconds / 3)
        return None

    async def ask(self) -> None:
        """Ask for a few reports, and give up some."""
        for _ in range(self.random.randint(1, 6)):
            await anyio.sleep(self.random.random() / 2)
            patience = self.random.choice((math.inf, self.random.random() * 0.6))
            asked = anyio.current_time()
            with anyio.move_on_after(patience):
                report = await self.health.report()
                assert "unknown" not in {each.status for each in report.checks}
            took = anyio.current_time() - asked
            assert took <= min(patience + GRACE, max(TIMEOUTS) + GRACE) + TICK


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_reports_in_time(backend: str, seed: int) -> None:
    """Each returns in time, no check runs beside itself, and in the end nothing is left."""

    async def main() -> None:
        stage = Stage(seed)
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(stage.ask)
        await anyio.sleep(5)
        assert_quiescent(stage.health)
        assert stage.running == [0] * len(TIMEOUTS)
        statistics = stage.health.statistics()
        assert statistics.hung == 0
        assert statistics.timed_out <= statistics.failed <= statistics.runs - statistics.cancelled

    run(main, backend=backend)
