"""Quota against limits that are counted the simple way, over random histories."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.resources import Quota, Taken
from mtaio.testing import run

pytestmark = pytest.mark.heavy

EXAMPLES = 20

# Sums of few powers of 2, so that floats are exact.
ALMOST = 1e-6


@dataclass
class Counted:
    """
    One limit, of which every grant is known, and counted anew each time.

    ``grants`` are when how much was used; ``more`` are debts, when they were found out.
    """

    limit: float
    per: float
    is_window: bool
    grants: list[list[float]]
    more: list[tuple[float, float]]

    def room(self, moment: float) -> float:
        """Return how much there is at a moment."""
        events = sorted([*((at, used) for at, used in self.grants), *self.more])
        if self.is_window:
            recent = [used for at, used in events if moment - self.per + ALMOST < at <= moment]
            return self.limit - sum(recent)
        level, last = self.limit, 0.0
        for at, used in events:
            level = min(self.limit, level + (at - last) * self.limit / self.per) - used
            last = at
        return min(self.limit, level + (moment - last) * self.limit / self.per)


@dataclass(frozen=True)
class Request:
    """A request: what it asks for, when it comes after the one before, and what it uses when."""

    pause: int
    cost: tuple[int, int]
    used: tuple[int, int] | None
    flight: int


SMALL = st.integers(0, 8)
REQUESTS = st.builds(
    Request,
    pause=st.sampled_from([0, 0, 1, 2, 5, 16, 64]),
    cost=st.tuples(SMALL, SMALL),
    used=st.none() | st.tuples(st.integers(0, 11), st.integers(0, 11)),
    flight=st.sampled_from([0, 1, 3, 8, 40]),
)


async def history(requests: list[Request], windows: tuple[bool, bool]) -> None:
    """Make the requests, and hold the quota to what is counted the simple way."""
    start = anyio.current_time()
    limits = [Counted(8, per, window, [], []) for per, window in zip((4, 8), windows, strict=True)]
    quota = Quota(a=(8, 4), b=(8, 8), window=windows[0])
    assert windows[0] == windows[1]
    order: list[int] = []

    async def make(number: int, request: Request) -> None:
        a, b = request.cost
        async with quota.take(a=a, b=b) as taken:
            order.append(number)
            now = anyio.current_time() - start
            for limit, cost in zip(limits, request.cost, strict=True):
                if cost:
                    assert limit.room(now) >= cost - ALMOST
            own = [[now, float(cost)] for cost in request.cost]
            for limit, grant in zip(limits, own, strict=True):
                limit.grants.append(grant)
            await anyio.sleep(request.flight / 8)
            if request.used is not None:
                settle(taken, request, own)

    def settle(taken: Taken, request: Request, own: list[list[float]]) -> None:
        assert request.used is not None
        used = dict(zip("ab", request.used, strict=True))
        taken.settle(**used)
        taken.settle(**used)  # which changes nothing
        now = anyio.current_time() - start
        pairs = zip(limits, own, request.cost, request.used, strict=True)
        for limit, grant, cost, amount in pairs:
            if amount > cost:
                limit.more.append((now, amount - cost))
            else:
                grant[1] = amount
        for limit, state in zip(limits, quota.statistics().limits.values(), strict=True):
            expected = limit.room(now)
            if limit.is_window:
                assert state.tokens == max(0, expected)
            else:
                assert abs(state.tokens - expected) < ALMOST, (state.tokens, expected)

    async with anyio.create_task_group() as group:
        for number, request in enumerate(requests):
            await anyio.sleep(request.pause / 8)
            group.start_soon(make, number, request)
            await anyio.lowlevel.checkpoint()
    assert order == list(range(len(requests)))
    figures = quota.statistics()
    assert (figures.acquired, figures.waiting, figures.in_flight) == (len(requests), 0, 0)


@pytest.mark.parametrize("window", [False, True])
def test_no_limit_is_exceeded(window: bool, backend: str) -> None:
    """What is granted is there by what was used until then; what comes back is neither less."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(st.lists(REQUESTS, min_size=1, max_size=12))
    def check(requests: list[Request]) -> None:
        run(history, requests, (window, window), backend=backend)

    check()
