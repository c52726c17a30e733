"""Refused calls, under many schedules, with a caller cancelled everywhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio.core import Budget, Retry
from mtaio.resilience import Pipeline
from mtaio.resources import RateLimiter
from mtaio.testing import assert_quiescent
from tests.explored.searches import explored, together

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim


class BusyError(Exception):
    """A 429."""

    retry_after = 5.0


@explored
async def test_refused_calls_leave_the_service_alone(victim: Victim, sim: Simulation) -> None:
    """For as long as it asked, whoever was refused, and then all come back, and none is lost."""
    limiter = RateLimiter(10, burst=1)
    budget = Budget(0, min_per_second=0)
    policy = Retry(1, throttled=BusyError, hold=limiter, budget=budget)
    api = Pipeline(policy, limiter, name="api")
    refusals = [True, True]
    refused_at: list[float] = []
    asked_at: list[float] = []
    ends: dict[str, str] = {}

    def is_left_alone() -> bool:
        return not any(
            before + 5 > later > before + 0.3 for before in refused_at for later in asked_at
        )

    async def ask() -> str:
        asked_at.append(anyio.current_time())
        await checkpoint()
        if refusals:
            refusals.pop()
            refused_at.append(anyio.current_time())
            raise BusyError
        return "fine"

    async def call(name: str) -> None:
        ends[name] = await api.run(ask)

    sim.always(is_left_alone)
    await together(
        victim=lambda: victim(call, "victim"),
        other=partial(call, "other"),
        third=partial(call, "third"),
    )
    assert_quiescent(api)
    assert limiter.statistics().waiting == 0
    assert {**ends, "victim": "fine"} == dict.fromkeys(("victim", "other", "third"), "fine")
    now = api.statistics()
    assert (now.calls, now.failed, now.cancelled) == (3, 0, int(victim.cancelled))
    assert now.parts["retry"].throttled == len(refused_at) == 2
    assert budget.statistics().retried == budget.statistics().rejected == 0


@explored
async def test_block_gives_back_what_it_does_not_use(victim: Victim, sim: Simulation) -> None:
    """Two blocks share a budget of two retries, and one is cancelled: the other loses nothing."""
    budget = Budget(1, min_per_second=0)
    made: list[str] = []
    done: list[str] = []

    async def work(name: str) -> None:
        async for attempt in Retry(2, budget=budget, wait_initial=1, jitter=0):
            async with attempt:
                made.append(name)
                await checkpoint()
                if attempt.number == 1:
                    raise ConnectionError
                done.append(name)

    sim.always(lambda: made.count("other") <= 2 and made.count("victim") <= 2)
    await together(victim=lambda: victim(work, "victim"), other=partial(work, "other"))
    assert "other" in done
    retries = sum(made.count(name) > 1 for name in ("other", "victim"))
    calls = budget.statistics().calls
    assert budget.statistics().available == calls - retries
