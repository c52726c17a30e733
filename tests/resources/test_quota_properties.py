"""Quota against limits that are counted the simple way, over random histories."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.resources import Quota, Taken
from mtaio.testing import run, settle

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


class History:
    """A quota of two limits, held to what is counted the simple way."""

    def __init__(self, *, window: bool) -> None:
        self.start = anyio.current_time()
        self.limits = [Counted(8, per, window, [], []) for per in (4, 8)]
        self.quota = Quota(a=(8, 4), b=(8, 8), window=window)
        self.order: list[int] = []

    def now(self) -> float:
        """Return the time since the start."""
        return anyio.current_time() - self.start

    async def make(self, number: int, request: Request) -> None:
        """Make a request: what it gets has to be there."""
        a, b = request.cost
        async with self.quota.take(a=a, b=b) as taken:
            self.order.append(number)
            own = [[self.now(), float(cost)] for cost in request.cost]
            for limit, grant in zip(self.limits, own, strict=True):
                if grant[1]:
                    assert limit.room(self.now()) >= grant[1] - ALMOST
                limit.grants.append(grant)
            await anyio.sleep(request.flight / 8)
            if request.used is not None:
                self.settle(taken, request.used, own)

    def settle(self, taken: Taken, used: tuple[int, int], own: list[list[float]]) -> None:
        """Settle it: what is there then is what would be if so much had been taken at first."""
        for _ in range(2):  # the second time changes nothing
            taken.settle(a=used[0], b=used[1])
        for limit, grant, amount in zip(self.limits, own, used, strict=True):
            if amount > grant[1]:
                limit.more.append((self.now(), amount - grant[1]))
            else:
                grant[1] = amount
        for limit, state in zip(self.limits, self.quota.statistics().limits.values(), strict=True):
            room = limit.room(self.now())
            expected = max(0, room) if limit.is_window else room
            assert abs(state.tokens - expected) < ALMOST


async def history(requests: list[Request], *, window: bool) -> None:
    """Make the requests."""
    made = History(window=window)
    async with anyio.create_task_group() as group:
        for number, request in enumerate(requests):
            await anyio.sleep(request.pause / 8)
            group.start_soon(made.make, number, request)
            await settle()
    assert made.order == list(range(len(requests)))
    figures = made.quota.statistics()
    assert (figures.acquired, figures.waiting, figures.in_flight) == (len(requests), 0, 0)


@pytest.mark.parametrize("window", [False, True])
def test_no_limit_is_exceeded(*, window: bool, backend: str) -> None:
    """What is granted is there by what was used until then; what comes back is neither less."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(st.lists(REQUESTS, min_size=1, max_size=12))
    def check(requests: list[Request]) -> None:
        run(partial(history, requests, window=window), backend=backend)

    check()
